import os
import pickle

import pytest
import torch

from retinanet import torchfiles
from retinanet.errors import UserError
from retinanet.torchfiles import load_file, save_file


class Code:
    def __reduce__(self):
        return os.system, ("touch /tmp/pickle-was-run",)


def test_round_trip_leaves_no_other_file(tmp_path):
    save_file({"a": torch.arange(3), "b": [1, "two", None]}, tmp_path / "x.pt")
    content = load_file(tmp_path / "x.pt", "a checkpoint")
    assert content["a"].tolist() == [0, 1, 2]
    assert content["b"] == [1, "two", None]
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "truncated", "pickle", "torch pickle", "model"])
def test_what_is_no_such_file_is_refused_by_name(tmp_path, kind, monkeypatch):
    path = tmp_path / "bad.pt"
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    if kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        save_file({"a": torch.arange(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Code()))
    elif kind == "torch pickle":
        torch.save({"model": Code()}, path)
    elif kind == "model":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "some text")
    with pytest.raises(UserError, match=r"bad\.pt: "):
        load_file(path, "a checkpoint")
    assert ran == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_file({"a": 1}, tmp_path / "x.pt")

    def breaks(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torchfiles.torch, "save", breaks)
    with pytest.raises(OSError, match="No space"):
        save_file({"a": 2}, tmp_path / "x.pt")
    assert load_file(tmp_path / "x.pt", "a checkpoint") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]

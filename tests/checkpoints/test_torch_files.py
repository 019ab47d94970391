import errno
import os
import pickle
import resource
from collections import OrderedDict

import pytest
import torch

from retinanet.checkpoints import torch_files
from retinanet.checkpoints.torch_files import load_file, save_file
from retinanet.runtime.errors import UserError


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


def test_files_of_pytorch_before_1_6_load(tmp_path):
    content = {"state_dict": OrderedDict(a=torch.arange(3.0), b=torch.ones(2, 2).half()), "classes": 80}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_file(tmp_path / "old.pth", "a state dict")
    assert loaded["classes"] == 80
    assert all(map(torch.equal, loaded["state_dict"].values(), content["state_dict"].values()))


@pytest.mark.parametrize("old", [False, True])
def test_a_pickled_module_is_refused_with_the_lines_that_save_its_weights(tmp_path, old):
    path = tmp_path / "model_final.pt"
    module = torch.nn.Linear(2, 2)
    torch.save(module, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"model_final\.pt: refused .* save its weights where it was made:") as refused:
        load_file(path, "a state dict")
    code = "\n".join(line.strip() for line in str(refused.value).splitlines()[1:3])
    folder = os.getcwd()
    try:
        os.chdir(tmp_path)
        exec(code, {"torch": torch})  # as the user would, where the module's class is known
    finally:
        os.chdir(folder)
    saved = load_file(tmp_path / "model_final_state_dict.pt", "a state dict")
    assert all(map(torch.equal, saved.values(), module.state_dict().values()))


def test_an_old_file_that_claims_more_than_it_has_takes_no_memory(tmp_path):
    torch.save({"a": torch.zeros(10)}, tmp_path / "bad.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "bad.pt").read_bytes()
    claims = content.replace(b"K\nN", b"J\xff\xff\xff\x7fN")
    assert claims != content
    (tmp_path / "bad.pt").write_bytes(claims)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"bad\.pt: not a state dict, or damaged"):
        load_file(tmp_path / "bad.pt", "a state dict")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def laughs(levels):
    """10 ** levels items in a few hundred bytes."""
    content = [0] * 10
    for _ in range(levels - 1):
        content = [content] * 10
    return content


def holds_itself():
    content = []
    content.append([content])
    return content


def nested(levels):
    content = []
    for _ in range(levels):
        content = [content]
    return content


HUGE = {
    "laughs": (lambda: laughs(10), "refer to more than 10000000 items"),
    "laughs in a dict": (lambda: {"a": (1, {"b": laughs(9)})}, "refer to more than 10000000 items"),
    "holds itself": (holds_itself, "nest too deeply"),
    "nested": (lambda: nested(400), "nest too deeply"),
    "FloatTensor": (lambda: {"a": Call(torch.FloatTensor, 10**9)}, "holds more than tensors and plain data"),
    "Tensor": (lambda: {"a": Call(torch.Tensor, 10**9)}, "holds more than tensors and plain data"),
    "bytearray": (lambda: {"a": Call(bytearray, 10**9)}, "holds more than tensors and plain data"),
    "expanded": (lambda: {"a": torch.zeros(1).expand(10**11)}, "a tensor claims the shape"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", HUGE)  # never the content: pytest would write it out
def test_what_would_unfold_is_refused_before_it_does(tmp_path, kind, old):
    make, words = HUGE[kind]
    torch.save(make(), tmp_path / "bad.pt", _use_new_zipfile_serialization=not old)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=rf"bad\.pt: .*{words}"):
        load_file(tmp_path / "bad.pt", "a checkpoint")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_all_kinds_of_plain_data_and_tensors_load(tmp_path):
    shared = (0.9, 0.999)
    content = {
        "tensors": [torch.zeros(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "groups": [{"betas": shared, 1: shared}] * 3,
        "more": [None, True, 2**70, 1.5, b"bytes", "text", {1, 2}, torch.Size([2]), OrderedDict(a=1), torch.float32],
    }
    save_file(content, tmp_path / "x.pt")
    loaded = load_file(tmp_path / "x.pt", "a checkpoint")
    assert loaded["groups"] == content["groups"]
    assert loaded["more"] == content["more"]
    assert all(map(torch.equal, loaded["tensors"], content["tensors"]))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_file({"a": 1}, tmp_path / "x.pt")

    def breaks(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch_files.torch, "save", breaks)
    with pytest.raises(OSError, match="No space"):
        save_file({"a": 2}, tmp_path / "x.pt")
    assert load_file(tmp_path / "x.pt", "a checkpoint") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_file_too_large_for_the_disk_says_how_much_it_needs(tmp_path):
    """torch.save raises an error about its archive on top of the system's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    shared = torch.zeros(500_000)
    try:
        with pytest.raises(OSError, match=r"File too large: 2\.0 MB needed, [\d.]+ [MG]B free"):
            save_file({"a": shared, "b": [shared[:7]]}, tmp_path / "x.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_a_file_that_cannot_be_read_at_the_moment_does_not_count_as_damaged(tmp_path, monkeypatch, error):
    """Otherwise, a run that is resumed on a disk with trouble would start anew."""
    save_file({"a": torch.zeros(1)}, tmp_path / "last.pt")

    def fail(*_arguments, **_more):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        load_file(tmp_path / "last.pt", "a checkpoint")

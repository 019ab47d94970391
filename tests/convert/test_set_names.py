"""Which set the images are in: files and folders tell it, or else all are train, and that is said."""

import json
from pathlib import Path

import pytest
from support.conversions import CAT, CLASSES, ROW, coco_json, converted, write

from retinanet.runtime.errors import UserError

ROWS = "a.png,12,8,32,32,cat\n"
NO_SET = "Note: nothing says which set the images are in, so all are read as train\n"
NO_VAL = "Note: there is no set val, which train.py needs; --split 0.8 0.2 divides the images\n"
COCO = json.dumps(coco_json(["a.png"]))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("set/train_labels.csv", "train"),
        ("set/valid-annotations.csv", "val"),
        ("set/test/labels.csv", "test"),
        ("set/annotations.csv", None),
        ("set/train_or_test.csv", None),
        ("set/instances_val2017.json", "val"),
        ("set/valid_annotations.json", "val"),
        ("set/valid/_annotations.coco.json", "val"),
        ("set/result.json", None),
        ("set/night.json", None),
    ],
)
def test_the_set_of_a_single_file(file, name, capsys):
    write({file: ROWS if file.endswith("csv") else COCO, str(Path(file).parent / "a.png"): None})

    assert converted(file) == {name or "train": {"a.png": CAT}}
    out = capsys.readouterr().out
    assert (NO_SET in out) == (name is None)
    assert (NO_VAL in out) == (name in (None, "train"))
    assert converted(file, "--set", "night", output_path="again") == {"night": {"a.png": CAT}}
    assert "Note" not in capsys.readouterr().out


def test_the_sets_of_several_files(capsys):
    write({"csv/train_labels.csv": ROWS, "csv/test_labels.csv": ROWS.replace("a", "b", 1), "csv/a.png": None})
    write({"csv/b.png": None, "coco/train_labels.json": COCO, "coco/valid_labels.json": COCO, "coco/a.png": None})

    assert converted("csv") == {"train": {"a.png": CAT}, "test": {"b.png": CAT}}
    assert converted("coco", output_path="two") == {"train": {"a.png": CAT}, "val": {"a.png": CAT}}
    assert "Note" not in capsys.readouterr().out
    write({"csv/train_more.csv": ROWS})
    assert list(converted("csv", output_path="three")) == ["test_labels", "train_labels", "train_more"]
    write({"coco/train_more.json": COCO})
    with pytest.raises(UserError, match=r"both coco/train_labels.json and coco/train_more.json may be the set train"):
        converted("coco", output_path="four")


def test_a_set_val_that_is_missing_is_said(capsys):
    write({"set/data.yaml": f"train: images\n{CLASSES}", "set/images/a.png": None, "set/images/b.png": None})
    write({"set/labels/a.txt": ROW, "set/labels/b.txt": ROW})

    converted("set")
    assert NO_VAL in capsys.readouterr().out
    converted("set", "--split", "0.5", "0.5", output_path="again")
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize("text", [ROWS, "b.png,12,8,32,32,cat\n"])
def test_a_set_of_which_nothing_is_left_is_refused(text):
    write({"set/train.csv": text, "set/val.csv": ROWS, "set/a.png": None})

    if text == ROWS:
        assert converted("set") == {"train": {"a.png": CAT}, "val": {"a.png": CAT}}
        return
    with pytest.raises(UserError, match="nothing is left of the set train, since all its images have mistakes"):
        converted("set", "--bad_labels", "skip")
    assert not Path("out").exists()


@pytest.mark.parametrize("other", ["valid.json", "validation.json", "annotations/instances_val2017.json"])
def test_a_set_with_another_spelling_beside_train_is_read_too(other):
    write({"set/train.json": COCO, f"set/{other}": COCO, "set/a.png": None})
    assert converted("set") == {"train": {"a.png": CAT}, "val": {"a.png": CAT}}

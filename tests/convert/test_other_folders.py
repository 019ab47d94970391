"""SOURCE is a folder above or below the export, or its archive: it is read if that is clear, or named."""

import json

import pytest
from support.conversions import CAT, CLASSES, DOG, ROW, coco_json, converted, voc_object, voc_xml, write

from retinanet.runtime.errors import UserError

ROBOFLOW = {"train/_annotations.coco.json": json.dumps(coco_json(["a.png"])), "train/a.png": None, "README.md": "x"}
YOLO = {"data.yaml": f"train: images\n{CLASSES}", "images/a.png": None, "labels/a.txt": ROW}
VOC = {  # CVAT's: labelmap.txt shows that coordinates count from 0
    "labelmap.txt": "dog:::\ncat:::\n",
    "Annotations/a.xml": voc_xml("a.png", voc_object(box=(12, 8, 32, 32))),
    "JPEGImages/a.png": None,
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("files", [ROBOFLOW, YOLO, VOC])
def test_an_only_folder_is_entered(files, capsys):
    write(files, "set/unpacked/My export.v2")
    write({"set/.DS_Store": "x", "set/__MACOSX/a.png": "x"})

    assert converted("set") == {"train": {"a.png": CAT}}
    out = capsys.readouterr().out
    assert out.startswith("Read set/unpacked/My export.v2: ")
    assert "2 hidden (" in out


def test_a_folder_that_names_a_set_or_a_part_is_not_entered():
    write({"set/valid/_annotations.coco.json": json.dumps(coco_json(["a.png"])), "set/valid/a.png": None})

    assert converted("set") == {"val": {"a.png": CAT}}


def test_roboflows_export_further_below_is_found():
    write(ROBOFLOW, "set/pets")
    write({"set/notes.md": "x"})

    assert converted("set") == {"train": {"a.png": CAT}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("set/labels", r"It is a part of .*/set: try that folder"),
        ("set/images", r"It is a part of .*/set: try that folder"),
        ("set/train", r"has no data.yaml.* If this is a part of .*/set, use that folder"),
        ("two", r"There is data.yaml in two/yolo: if it belongs to this dataset, use that folder"),
        ("shapes", r"Its folder shapes/coco looks like a dataset: try that"),
        ("set.zip", r"set.zip: is an archive. Unpack it, and use the folder"),
    ],
)
def test_the_right_folder_is_named(source, message):
    write(YOLO | {"train/images/b.png": None, "train/labels/b.txt": ROW}, "set")
    write(YOLO, "two/yolo")
    write({"two/notes.md": "x", "shapes/coco/train.json": json.dumps(coco_json(["a.png"])), "shapes/b.md": "x"})
    write({"set.zip": "x"})

    with pytest.raises(UserError, match=message):
        converted(source)


def test_the_folder_that_is_named_is_read():
    write(YOLO | {"labels/a.txt": ROW.replace("0", "1", 1)}, "set")

    assert converted("set") == {"train": {"a.png": DOG}}

"""Images in a folder of their own: --image_path names it, and what is found there is accounted for."""

import json
from pathlib import Path

import pytest
from support.conversions import CAT, CLASSES, DOG, ROW, coco_json, converted, voc_xml, write
from support.exports import cvats_xml, labelme

from retinanet.runtime.errors import UserError

DOG_ROW = ROW.replace("0", "1", 1)
CSV = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,cat,12,8,32,32\n"
# Annotations of the image a.png, by what they are, without it.
ANNOTATIONS = {
    "CSV": {"train.csv": CSV},
    "labelme": {"a.json": labelme("a.png")},
    "CVAT": {"annotations.xml": cvats_xml("a.png")},
    "COCO": {"train.json": json.dumps(coco_json(["../upload/4/a.png"]))},
    "VOC": {"Annotations/a.xml": voc_xml("a.png")},
}
LISTS = {
    "Ultralytics": {
        "data.yaml": f"path: .\ntrain: train.txt\nval: val.txt\n{CLASSES}",
        "train.txt": "data/images/train/cam 1/a.png\n",
        "val.txt": "data/images/val/cam 2/a.png\n",
        "labels/train/cam 1/a.txt": ROW,
        "labels/val/cam 2/a.txt": DOG_ROW,
    },
    "YOLO 1.1": {
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
        "obj.names": "cat\ndog\n",
        "train.txt": "data/obj_train_data/cam 1/a.png\n",
        "valid.txt": "data/obj_valid_data/cam 2/a.png\n",
        "obj_train_data/cam 1/a.txt": ROW,
        "obj_valid_data/cam 2/a.txt": DOG_ROW,
    },
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_yolo_labels_are_those_of_the_source_and_not_older_ones_beside_the_images():
    write({"images/a.png": None, "labels/a.txt": DOG_ROW, "images/b.png": None, "labels/b.txt": DOG_ROW}, "old")
    write({"new/classes.txt": "cat\ndog\n", "new/labels/a.txt": ROW})

    assert converted("new", "--image_path", "old/images") == {"train": {"a.png": CAT, "b.png": []}}
    Path("new/labels/a.txt").unlink()
    both = {"train": {"a.png": DOG, "b.png": DOG}}
    assert converted("new", "--from", "yolo", "--image_path", "old/images", output_path="again") == both


@pytest.mark.parametrize("export", LISTS)
def test_yolo_lists_of_images_that_are_elsewhere(export):
    write(LISTS[export], "set")
    write({"pics/cam 1/a.png": None, "pics/cam 2/a.png": None})

    assert converted("set", "--image_path", "pics") == {"train": {"a.png": CAT}, "val": {"a.png": DOG}}
    with pytest.raises(UserError, match=r"train.txt:1: there is no image .* or name the folder .*--image_path"):
        converted("set", output_path="again")


def test_yolo_folders_of_images_that_are_elsewhere():
    write({"set/data.yaml": f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{CLASSES}"})
    write({"train/labels/a.txt": ROW, "valid/labels/b.txt": DOG_ROW}, "set")
    write({"pics/train/a.png": None, "pics/valid/b.png": None})

    assert converted("set", "--image_path", "pics") == {"train": {"a.png": CAT}, "val": {"b.png": DOG}}
    with pytest.raises(UserError, match="sort the images in pics/train into folders with the names of the sets"):
        converted("set", "--image_path", "pics/train", output_path="again")


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        (("labels/x/a.txt", "labels/y/a.txt"), ("a.png",), "labels/y/a.txt may be its label file"),
        (("labels/a.txt",), ("x/a.png", "y/a.png"), "pics/y/a.png may be its image"),
    ],
)
def test_yolo_labels_that_may_belong_to_several_images_are_asked_about(labels, images, message):
    write({"set/classes.txt": "cat\n", **{f"set/{label}": ROW for label in labels}})
    write({f"pics/{image}": None for image in (*images, "b.png")})

    with pytest.raises(UserError, match=message):
        converted("set", "--image_path", "pics", "--allow_unlabelled")
    skipped = converted("set", "--image_path", "pics", "--allow_unlabelled", "--bad_labels", "skip")
    assert skipped == {"train": {"b.png": []}}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_images_of_the_folder_that_the_annotations_leave_out(kind, capsys):
    write(ANNOTATIONS[kind], "set")
    write({"pics/cam/a.png": None, "pics/cam/b.png": None, "pics/notes.md": "x"})

    (images,) = converted("set", "--image_path", "pics").values()
    out = capsys.readouterr().out
    (more,) = converted("set", "--image_path", "pics", "--allow_unlabelled", output_path="again").values()

    assert {Path(name).name: rows for name, rows in images.items()} == {"a.png": CAT}
    assert {Path(name).name: rows for name, rows in more.items()} == {"a.png": CAT, "b.png": []}
    assert "Note: 1 image next to the others, not named in the annotations: left out" in out
    assert "Files: 2 read, 2 not read: 1 not named by the annotations (pics/cam/b.png), 1 of another kind" in out
    assert "Files: 3 read, 1 not read: 1 of another kind (pics/notes.md)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "files", [{"train.csv": CSV.replace("a.png", "cam/a.png")}, {"train.json": json.dumps(coco_json(["cam/a.png"]))}]
)
def test_the_image_with_the_most_folders_of_its_name_is_taken(files):
    write(files, "set")
    write({"pics/a.png": None, "pics/new/cam/a.png": None})

    ((name,),) = converted("set", "--image_path", "pics").values()

    assert Path("out/images/train", name).resolve() == Path("pics/new/cam/a.png").resolve()


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_a_missing_image_is_asked_about_with_the_flag(kind):
    write(ANNOTATIONS[kind], "set")
    write({"pics/b.png": None})

    with pytest.raises(UserError, match=r"there is no image .*a.png. Put it there, or name the folder .*--image_path"):
        converted("set")
    with pytest.raises(UserError, match=r"there is no image .*a.png in pics. Put it there, or correct --image_path"):
        converted("set", "--image_path", "pics")


def test_the_folder_must_hold_images():
    write({"set/train.csv": CSV, "empty/notes.md": "x"})

    with pytest.raises(UserError, match=r"empty: has no images. Correct --image_path"):
        converted("set", "--image_path", "empty")
    with pytest.raises(UserError, match=r"set/train.csv: is a file. Name the folder of the images"):
        converted("set", "--image_path", "set/train.csv")


def test_the_folder_that_is_missing_in_a_set_is_the_one_that_is_named():
    for folder in ("train", "valid"):
        write({f"set/{folder}/_annotations.coco.json": json.dumps(coco_json(["a.png"]))})
    write({"set/train/a.png": None})

    with pytest.raises(UserError, match=r"there is no image set/valid/a.png"):
        converted("set")


def test_labelmes_image_is_where_its_json_says_even_outside_the_source(capsys):
    write({"set/labels/a.json": labelme("../raw photos/a.png"), "set/raw photos/a.png": None})
    write({"set/raw photos/b.png": None})

    assert converted("set/labels") == {"train": {"a.png": CAT}}
    assert "Files: 2 read, 1 not read: 1 not named by the annotations" in capsys.readouterr().out
    more = converted("set/labels", "--allow_unlabelled", output_path="again")
    assert more == {"train": {"a.png": CAT, "b.png": []}}


def test_a_single_file_never_takes_the_pictures_of_a_dataset_around_it():
    write({"data/train.json": json.dumps(coco_json(["a.png"])), "data/images/train/a.png": None})
    write({"data/new/labels.json": json.dumps(coco_json(["a.png"])), "data/new/pictures/a.png": None})
    with pytest.raises(UserError, match=r"a\.png"):
        converted("data/new/labels.json")
    write({"data/new/b.png": None, "data/new/a.png": None})
    assert converted("data/new/labels.json") == {"train": {"a.png": CAT}}
    assert Path("out/images/train/a.png").samefile("data/new/a.png")

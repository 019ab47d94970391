"""Exports of labelling tools are read as they come. Each is written by hand after the tool's own description."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from support.conversions import CAT, CLASSES, DOG, HEIGHT, ROW, WIDTH, coco_json, converted, voc_object, voc_xml, write
from support.exports import cvats_xml, labelme

from retinanet.coco.formats import WORDS
from retinanet.convert.readers import READERS
from retinanet.convert.writers import WRITERS
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import ONLY_READ, WRITTEN

DOG_ROW = ROW.replace("0", "1", 1)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_format_has_words_and_a_reader():
    assert set(READERS) == set(WORDS) == {*WRITTEN, *ONLY_READ}
    assert set(WRITERS) == set(WRITTEN)


def cvats_entries(content: dict) -> dict:
    for entry in content["annotations"]:
        entry["attributes"] = {"occluded": False}
    return content


ROBOFLOWS = {"README.roboflow.txt": "x", "README.dataset.txt": "x"}
WITHOUT_SETS = {"train": {"a.png": CAT, "b.png": CAT}}
TWO_SETS = {"train": {"a.png": CAT}, "val": {"b.png": CAT}}
CVATS_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>cat</name><attributes/></label><label><name>dog</name><attributes/></label>
  </labels></task></meta>
  <image id="0" name="a.png" width="64" height="48">
    <box label="cat" source="manual" occluded="0" xtl="12.00" ytl="8.00" xbr="32.00" ybr="32.00" z_order="0"></box>
  </image>
  <image id="1" name="b.png" width="64" height="48" subset="Validation">
    <polygon label="cat" source="manual" occluded="0" points="12.0,8.0;32.0,8.0;32.0,32.0" z_order="0"></polygon>
    <points label="cat" source="manual" occluded="0" points="1.0,1.0" z_order="0"></points>
  </image>
</annotations>
"""
REGION = {"x": 18.75, "y": 100 / 6, "width": 31.25, "height": 50.0, "rotation": 0, "rectanglelabels": ["cat"]}


def task(number: int, image: str) -> dict:
    result = {"original_width": 64, "original_height": 48, "type": "rectanglelabels", "value": REGION}
    return {"id": number, "data": {"image": image}, "annotations": [{"id": 1, "result": [result]}]}


EXPORTS = {
    # https://docs.cvat.ai/docs/dataset_management/formats/format-coco/
    "CVAT's COCO 1.0": (
        {
            "annotations/instances_default.json": json.dumps(cvats_entries(coco_json(["a.png", "b.png"]))),
            "images/a.png": None,
            "images/b.png": None,
        },
        WITHOUT_SETS,
    ),
    "CVAT's COCO 1.0, with subsets": (
        {
            "annotations/instances_Train.json": json.dumps(cvats_entries(coco_json(["a.png"]))),
            "annotations/instances_Validation.json": json.dumps(cvats_entries(coco_json(["b.png"]))),
            "images/Train/a.png": None,
            "images/Validation/b.png": None,
        },
        TWO_SETS,
    ),
    # https://docs.cvat.ai/docs/dataset_management/formats/format-yolo/
    "CVAT's YOLO 1.1": (
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
            "backup = backup/\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.png\n",
            "valid.txt": "data/obj_valid_data/b.png\n",
            "obj_train_data/a.png": None,
            "obj_train_data/a.txt": ROW,
            "obj_valid_data/b.png": None,
            "obj_valid_data/b.txt": ROW,
        },
        TWO_SETS,
    ),
    # https://docs.cvat.ai/docs/dataset_management/formats/format-yolo-ultralytics/
    "Ultralytics' YOLO": (
        {
            "data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n",
            "train.txt": "data/images/train/a.png\n",
            "val.txt": "images/val/b.png\n",
            "images/train/a.png": None,
            "images/val/b.png": None,
            "labels/train/a.txt": ROW,
            "labels/val/b.txt": ROW,
        },
        TWO_SETS,
    ),
    # https://docs.cvat.ai/docs/dataset_management/formats/format-voc/; its coordinates count from 0
    "CVAT's PASCAL VOC": (
        {
            "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:::\ndog:::\n",
            "ImageSets/Main/default.txt": "a\nb\n",
            **{
                f"Annotations/{stem}.xml": voc_xml(f"{stem}.png", voc_object(box=(12.0, 8.0, 32.0, 32.0)))
                for stem in "ab"
            },
            "JPEGImages/a.png": None,
            "JPEGImages/b.png": None,
        },
        WITHOUT_SETS,
    ),
    # https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
    "CVAT's own XML": (
        {"annotations.xml": CVATS_XML, "images/a.png": None, "images/Validation/b.png": None},
        TWO_SETS,
    ),
    # https://labelstud.io/guide/export.html
    "Label Studio's COCO": (
        {
            "result.json": json.dumps(
                coco_json(["images/a.png", "/data/local-files/?d=photos/b.png"], info={"contributor": "Label Studio"})
            ),
            "images/a.png": None,
            "images/b.png": None,
        },
        WITHOUT_SETS,
    ),
    "Label Studio's YOLO": (
        {
            "classes.txt": "cat\ndog\n",
            "notes.json": json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}),
            "images/1f2e3d4c-a.png": None,
            "labels/1f2e3d4c-a.txt": ROW,
            "images/b.png": None,
            "labels/0a1b2c3d-b.txt": ROW,
        },
        {"train": {"1f2e3d4c-a.png": CAT, "b.png": CAT}},
    ),
    "PASCAL VOC format": (
        {
            "Annotations/1f2e3d4c-a.xml": voc_xml("1f2e3d4c-a", voc_object()),
            "Annotations/b.xml": voc_xml("b"),
            "images/a.png": None,
            "images/b.png": None,
        },
        WITHOUT_SETS,
    ),
    "Label Studio's JSON": (
        {
            "project-1.json": json.dumps([task(1, "/data/upload/1/1f2e3d4c-a.png"), task(2, "s3://photos/b.png")]),
            "1f2e3d4c-a.png": None,
            "b.png": None,
        },
        {"train": {"1f2e3d4c-a.png": CAT, "b.png": CAT}},
    ),
    "Label Studio's JSON, the short form": (
        {
            "min.json": json.dumps(
                [{"id": number, "image": f"{name}.png", "label": [REGION]} for number, name in enumerate("ab")]
            ),
            "a.png": None,
            "b.png": None,
        },
        WITHOUT_SETS,
    ),
    # https://docs.roboflow.com/datasets/dataset-versions/exporting-a-version and https://roboflow.com/formats
    "Roboflow's COCO": (
        ROBOFLOWS
        | {
            "train/_annotations.coco.json": json.dumps(coco_json(["a.png"])),
            "train/a.png": None,
            "valid/_annotations.coco.json": json.dumps(coco_json(["b.png"])),
            "valid/b.png": None,
        },
        TWO_SETS,
    ),
    "Roboflow's YOLO": (
        ROBOFLOWS
        | {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
            "names: ['cat', 'dog']\n\nroboflow:\n  project: pets\n",
            "train/images/a.png": None,
            "train/labels/a.txt": ROW,
            "valid/images/b.png": None,
            "valid/labels/b.txt": ROW,
        },
        TWO_SETS,
    ),
    "Roboflow's PASCAL VOC": (
        ROBOFLOWS
        | {
            "train/a.png": None,
            "train/a.xml": voc_xml("a.png"),
            "valid/b.png": None,
            "valid/b.xml": voc_xml("b.png"),
        },
        TWO_SETS,
    ),
    "Roboflow's CSV": (
        ROBOFLOWS
        | {
            f"{folder}/_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\n"
            f"{name}.png,64,48,cat,12,8,32,32\n"
            for folder, name in (("train", "a"), ("valid", "b"))
        }
        | {"train/a.png": None, "valid/b.png": None},
        TWO_SETS,
    ),
    # https://github.com/HumanSignal/labelImg
    "LabelImg's YOLO": (
        {"classes.txt": "cat\ndog\n", "a.png": None, "a.txt": ROW, "b.png": None, "b.txt": ROW},
        WITHOUT_SETS,
    ),
    # https://github.com/wkentaro/labelme
    "labelme's JSON": (
        {"a.json": labelme("a.png"), "a.png": None, "json/b.json": labelme("..\\images\\b.png"), "images/b.png": None},
        {"train": {"a.png": CAT, "images/b.png": CAT}},
    ),
    # the layout of VOC-like sets such as https://www.kaggle.com/datasets/andrewmvd/face-mask-detection
    "PASCAL VOC format, in lower case": (
        {
            "annotations/a.xml": voc_xml("a.png"),
            "annotations/b.xml": voc_xml("b.png"),
            "images/a.png": None,
            "images/b.png": None,
        },
        WITHOUT_SETS,
    ),
    # sets that a library wrote without splits, as in https://supervision.roboflow.com/latest/datasets/core/
    "COCO format": (
        {"annotations.json": json.dumps(coco_json(["a.png", "b.png"])), "images/a.png": None, "images/b.png": None},
        WITHOUT_SETS,
    ),
    "YOLO format": (
        {
            "data.yaml": f"{CLASSES}nc: 2\n",
            "images/a.png": None,
            "labels/a.txt": ROW,
            "images/b.png": None,
            "labels/b.txt": ROW,
        },
        WITHOUT_SETS,
    ),
    "COCO format, as published": (
        {
            "annotations/instances_train2017.json": json.dumps(coco_json(["a.png"])),
            "annotations/person_keypoints_val2017.json": json.dumps(coco_json(["b.png"])),
            "annotations/captions_val2017.json": json.dumps({"images": [], "annotations": []}),
            "train2017/a.png": None,
            "val2017/b.png": None,
        },
        TWO_SETS,
    ),
    "CSV": (
        {
            "train.csv": "label;y_max;x_max;y_min;x_min;image\ncat;32;32;8;12;a.png\n",
            "val.csv": "image_path,left,top,width,height,class\nb.png,12,8,20,24,cat\n",
            "a.png": None,
            "b.png": None,
        },
        TWO_SETS,
    ),
}


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_read_as_it_comes(export, capsys):
    files, expected = EXPORTS[export]
    write(files, "set")

    assert converted("set") == expected
    assert capsys.readouterr().out.startswith(f"Read set: {export.partition(',')[0]}, ")


def test_the_table_in_the_docs_names_each_export():
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = [line.split("|")[1].strip() for line in docs.splitlines() if line.startswith("| ")]
    for export in EXPORTS:
        assert any(export.partition(",")[0] in row for row in rows), export


def test_a_set_without_a_split_gets_the_name_that_is_told(capsys):
    write(EXPORTS["COCO format"][0], "set")

    assert converted("set", "--set", "val") == {"val": WITHOUT_SETS["train"]}
    assert "Note" not in capsys.readouterr().out
    write(EXPORTS["YOLO format"][0], "yolo")
    assert list(converted("yolo", "--set", "night", output_path="yolo_out")) == ["night"]
    write(EXPORTS["Roboflow's YOLO"][0], "two")
    with pytest.raises(UserError, match="--set val: two has the sets train, val"):
        converted("two", "--set", "val", output_path="two_out")


def test_yolo_labels_without_names():
    write({"set/images/a.png": None, "set/labels/a.txt": DOG_ROW})

    with pytest.raises(UserError, match="or name the classes with --names cat dog"):
        converted("set")
    assert converted("set", "--names", "cat", "dog") == {"train": {"a.png": DOG}}


@pytest.mark.parametrize(("export", "file"), [("YOLO format", "data.yaml"), ("CVAT's YOLO 1.1", "obj.names")])
def test_names_of_classes_that_a_file_lists_are_refused(export, file):
    write(EXPORTS[export][0], "set")

    with pytest.raises(UserError, match=f"set/{file}: lists the classes, so --names would have no effect"):
        converted("set", "--names", "dog", "cat")


def test_label_studios_shapes_and_labels_may_be_chosen_separately(capsys):
    sides = {key: value for key, value in REGION.items() if key != "rectanglelabels"}
    pair = [
        {"id": "x1", "type": "rectangle", "value": sides},
        {"id": "x1", "type": "labels", "value": {**sides, "labels": ["cat"]}},
    ]
    words = {"id": "x2", "type": "labels", "value": {"start": 0, "end": 3, "text": "cat", "labels": ["cat"]}}
    both = {"id": "x3", "type": "rectanglelabels", "value": {**sides, "rectanglelabels": ["dog", "brown"]}}
    one, other = task(1, "a.png"), task(2, "b.png")
    one["annotations"][0]["result"], other["annotations"][0]["result"] = [*pair, words], [both]
    write({"set/tasks.json": json.dumps([one, other]), "set/a.png": None, "set/b.png": None})

    assert converted("set") == {"train": {"a.png": CAT, "b.png": DOG}}
    out = capsys.readouterr().out
    assert "shapes without a box are left out: 1 label\n" in out
    assert "of shapes with several labels, only the first label is read: 1\n" in out


def test_shapes_without_a_box_are_counted_in_json_min(capsys):
    brush = {"format": "rle", "rle": [0, 1], "brushlabels": ["cat"]}
    point = {"x": 10, "y": 10, "width": 0.5, "keypointlabels": ["cat"]}
    write({"set/min.json": json.dumps([{"id": 1, "image": "a.png", "tag": [REGION, brush, point]}]), "set/a.png": None})

    assert converted("set") == {"train": {"a.png": CAT}}
    assert "shapes without a box are left out: 1 brushlabel, 1 keypointlabel" in capsys.readouterr().out


def test_a_blank_line_among_the_classes_is_a_class_without_a_name():
    write({"set/classes.txt": "cat\n\ndog\n\n", "set/a.png": None, "set/a.txt": ROW.replace("0", "2", 1)})
    with pytest.raises(UserError, match=r"classes\.txt: class 1 has no name. Give it one"):
        converted("set")
    write({"set/classes.txt": "cat\nbird\ndog\n\n"})
    assert converted("set") == {"train": {"a.png": DOG}}


def test_two_lists_of_a_set_are_read_together():
    write({"set/classes.txt": "cat\ndog\n", "set/train.txt": "images/a.png\n", "set/training.txt": "images/b.png\n"})
    write({f"set/images/{name}.png": None for name in "ab"} | {f"set/labels/{name}.txt": ROW for name in "ab"})

    assert converted("set") == {"train": {"a.png": CAT, "b.png": CAT}}


@pytest.mark.parametrize("has_size", [True, False])
@pytest.mark.parametrize("tool", ["voc", "labelme"])
def test_without_a_size_nothing_tells_the_orientation_of_a_photograph(tool, has_size, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Path("set").mkdir()
    Image.new("RGB", (HEIGHT, WIDTH)).save("set/a.png", exif=exif)  # WIDTH x HEIGHT when turned upright
    xml, shapes = voc_xml("a.png"), json.loads(labelme("a.png"))
    if not has_size:
        xml = re.sub(r"<size>.*</size>\n", "", xml)
        shapes |= {"imageWidth": None, "imageHeight": None}
    write({"set/a.xml": xml} if tool == "voc" else {"set/a.json": json.dumps(shapes)})

    converted("set")
    assert ("1 image with an EXIF orientation, where the size doesn't tell" in capsys.readouterr().out) != has_size


def test_the_first_of_several_annotations_of_a_task_is_read(capsys):
    dog = {**REGION, "rectanglelabels": ["dog"]}
    rows = [
        {"id": 7, "image": "a.png", "annotator": number, "tag": [each]} for number, each in enumerate((REGION, dog))
    ]
    write({"set/min.json": json.dumps([*rows, {"id": 8, "image": "b.png", "tag": [dog]}])})
    write({"set/a.png": None, "set/b.png": None})

    assert converted("set") == {"train": {"a.png": CAT, "b.png": DOG}}
    assert "Note: of tasks with several annotations, only the first one is read: 1\n" in capsys.readouterr().out


def test_tasks_that_nobody_labelled_are_left_out_and_counted(capsys):
    tasks = [task(number, f"{name}.png") for number, name in enumerate("abcd")]
    tasks[1]["annotations"] = []
    tasks[2]["annotations"][0] |= {"result": [], "was_cancelled": True}
    tasks[3]["annotations"][0]["result"] = []
    write({"set/tasks.json": json.dumps(tasks), **{f"set/{name}.png": None for name in "abcd"}})

    assert converted("set") == {"train": {"a.png": CAT, "d.png": []}}
    out = capsys.readouterr().out
    assert "Note: tasks that nobody labelled, or that were skipped, are left out, unless --allow_unlabelled is" in out
    assert "Files: 3 read, 2 not read: 2 in an unlabelled task (b.png)\n" in out
    everything = {"train": {"a.png": CAT, "b.png": [], "c.png": [], "d.png": []}}
    assert converted("set", "--allow_unlabelled", output_path="all") == everything


def test_cvats_subsets_that_are_no_sets_are_left_out_unless_there_is_no_other(capsys):
    write({"set/annotations.xml": CVATS_XML.replace('name="a.png"', 'name="a.png" subset="holdout"')})
    write({"set/images/a.png": None, "set/images/b.png": None})

    assert converted("set") == {"val": {"b.png": CAT}}
    out = capsys.readouterr().out
    assert "Note: images in subsets other than train, val and test are left out: 1, such as set/images/a.png\n" in out
    write({"set/annotations.xml": CVATS_XML.replace("Validation", "holdout")})
    assert converted("set", output_path="again") == WITHOUT_SETS


@pytest.mark.parametrize("export", ["CVAT's own XML", "Label Studio's YOLO", "CVAT's PASCAL VOC", "COCO format"])
def test_images_in_another_folder(export):
    files, expected = EXPORTS[export]
    for name, content in files.items():
        write({name if content is not None else f"../photos/{Path(name).name}": content}, "set")

    sets = converted("set", "--image_path", "photos")

    assert {
        set_name: {Path(name).name: rows for name, rows in images.items()} for set_name, images in sets.items()
    } == (expected)


def test_the_format_can_be_told():
    write(EXPORTS["YOLO format"][0] | {"annotations.json": json.dumps(coco_json(["a.png"]))}, "set")

    assert converted("set", "--from", "coco") == {"train": {"a.png": CAT}}


def test_images_that_an_export_left_out_have_no_objects_if_that_is_told(capsys):
    write(EXPORTS["COCO format"][0] | {"images/c.png": None}, "set")

    assert converted("set") == WITHOUT_SETS
    assert "1 image next to the others, not named in the annotations: left out" in capsys.readouterr().out
    assert converted("set", "--allow_unlabelled", output_path="all")["train"]["c.png"] == []


def test_the_upright_box_around_a_rotated_box(capsys):
    content = cvats_entries(coco_json(["a.png"]))
    content["annotations"][0]["attributes"]["rotation"] = 90.0
    write({"coco/annotations/instances_default.json": json.dumps(content), "coco/images/a.png": None})
    write({"xml/annotations.xml": CVATS_XML.replace(' z_order="0"></box>', ' rotation="90.0"></box>', 1)})
    write({"images/a.png": None, "images/b.png": None}, "xml")
    turned = {**REGION, "rotation": 90}  # about its top-left corner
    write({"ls/a.json": json.dumps([{"image": "a.png", "label": [turned]}]), "ls/a.png": None})

    rotated = [("cat", 10.0, 10.0, 24.0, 20.0, False)]
    assert converted("coco")["train"]["a.png"] == rotated
    assert "rotated boxes are read as the upright boxes around them: 1" in capsys.readouterr().out
    assert converted("xml", output_path="xml_out")["train"]["a.png"] == rotated
    assert converted("ls", output_path="ls_out")["train"]["a.png"] == [("cat", -12.0, 8.0, 24.0, 20.0, False)]


def test_roboflows_category_that_is_the_name_of_the_project_is_left_out(capsys):
    content = coco_json(["a.png"])
    for category in content["categories"]:
        category["supercategory"] = "pets"
    content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    write({"set/train/_annotations.coco.json": json.dumps(content), "set/train/a.png": None})

    assert converted("set") == {"train": {"a.png": CAT}}
    assert [each["name"] for each in json.loads(Path("out/train.json").read_text())["categories"]] == ["cat", "dog"]
    assert "category 0 (pets) is the group of all others" in capsys.readouterr().out


def test_a_rotated_box_in_cvats_voc_is_the_box_around_it(capsys):
    rotation = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    write({"set/Annotations/a.xml": voc_xml("a.png", voc_object(extra=rotation, box=(10, 20, 30, 24)))})
    write({"set/JPEGImages/a.png": None, "set/labelmap.txt": "# label:color_rgb:parts:actions\ncat:::\n"})

    assert converted("set") == {"train": {"a.png": [("cat", 18.0, 12.0, 4.0, 20.0, False)]}}
    assert "rotated boxes are read as the upright boxes around them: 1" in capsys.readouterr().out
    wrong = voc_object(extra=rotation.replace("90.0", "upwards"))
    write({"set/Annotations/a.xml": voc_xml("a.png", voc_object(), wrong)})
    assert converted("set", "--bad_labels", "skip", output_path="other") == {
        "train": {"a.png": [("cat", 13.0, 9.0, 19.0, 23.0, False)]}
    }
    assert "Left out, because of --bad_labels skip: 1" in capsys.readouterr().out


def test_labelmes_shapes_of_a_group_are_an_object(capsys):
    content = json.loads(labelme("a.png"))
    point = {"label": "cat", "points": [[1, 1]], "shape_type": "point"}
    half = {"label": "dog", "group_id": 7, "shape_type": "polygon"}
    content["shapes"] = [
        {**half, "points": [[12, 8], [20, 8], [20, 20]]},
        {**half, "points": [[32, 32], [20, 32], [20, 20]]},
        {"label": "cat", "points": [[22.0, 20.0], [32.0, 20.0]], "shape_type": "circle"},
        point,
    ]
    write({"set/a.json": json.dumps(content), "set/a.png": None})

    assert converted("set") == {"train": {"a.png": [*DOG, ("cat", 12.0, 10.0, 20.0, 20.0, False)]}}
    assert "shapes without a box are left out: 1 point" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({"a.xml": CVATS_XML.replace("<image id", "<track/><image id", 1)}, (), "holds the tracks of a video"),
        ({"a.xml": CVATS_XML}, (), "there is no image a.png"),
        (
            {"a.xml": CVATS_XML.replace('"12.00"', '"nan"'), "a.png": None, "b.png": None},
            (),
            "xtl is 'nan', not a number",
        ),
        ({"a.xml": CVATS_XML.replace('width="64"', 'width="65"'), "a.png": None, "b.png": None}, (), "says 65 x 48"),
        ({"a.json": labelme("../../b.png")}, (), "there is no image"),
        ({"a.json": labelme("a.png").replace("12.0", "null"), "a.png": None}, (), "points are not all [x, y]"),
        ({"a.json": "[]"}, ("--from", "labelstudio"), "has no JSON file with a list of tasks"),
        ({"a.json": "{"}, ("--from", "labelme"), "not valid JSON"),
        ({"a.json": json.dumps([task(1, "a.png")])}, (), "there is no image a.png"),
        ({"a.xml": voc_xml("../a.png"), "a.png": None}, (), "the file name '../a.png' leaves the folder"),
        (
            {"a.xml": CVATS_XML.replace("b.png", "cam 2/a.png"), "images/a.png": None},
            (),
            "set/a.xml:10: its image is set/images/a.png, which already has the labels of a.png. If these",
        ),
        (
            {"a.xml": voc_xml("a.png"), "b.xml": voc_xml("a.png"), "a.png": None},
            (),
            "set/b.xml: its image is set/a.png, which already has the labels of set/a.xml. If these",
        ),
        (
            {"a.json": labelme("a.png"), "b.json": labelme("a.png"), "a.png": None},
            (),
            "set/b.json: its image is set/a.png, which already has the labels of set/a.json. If these",
        ),
        (
            {"a.json": json.dumps([task(1, "cam 1/a.png"), task(2, "cam 2/a.png")]), "a.png": None},
            (),
            "set/a.json: task 2: its image is set/a.png, which already has the labels of set/a.json: task 1. If these",
        ),
        (
            {"a.json": json.dumps([task(1, "") | {"data": {"camera": "a", "image": "no.png"}}]), "a.png": None},
            (),
            "task 1: there is no image no.png",
        ),
        (
            {"a.json": json.dumps([task(1, "") | {"data": {"camera": "a"}}]), "a.png": None},
            (),
            "task 1: names no image. Write its path or URL under image",
        ),
        (
            {"a.json": json.dumps([{"image": "a.png", "result": [{"value": None}]}]), "a.png": None},
            (),
            "task 0: a region's value is None, not its class and sides",
        ),
        ({"a.json": json.dumps(coco_json([["a.png"], "b.png"])), "b.png": None}, (), "image 1 has no file_name"),
    ],
)
def test_mistakes_in_an_export_are_named(files, flags, message, capsys):
    write(files, "set")

    with pytest.raises(UserError) as caught:
        converted("set", *flags)

    assert message in str(caught.value) + capsys.readouterr().out
    assert not Path("out").exists()


def test_cvats_labels_that_only_tag_images_are_no_classes(capsys):
    kinds = {"blurry": "tag", "corner": "points", "bird": "any", "wire": "polyline", "odd": "tag"}
    labels = "".join(f"<label><name>{name}</name><type>{kind}</type></label>" for name, kind in kinds.items())
    shapes = '<tag label="blurry"/><tag label="blurry"/><points label="corner" points="1.0,1.0"/>'
    odd = '<box label="odd" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    write({"set/annotations.xml": cvats_xml("a.png", shapes + odd, labels), "set/a.png": None})

    assert converted("set") == {"train": {"a.png": [*CAT, ("odd", 1.0, 1.0, 8.0, 8.0, False)]}}
    out = capsys.readouterr().out
    assert "4 classes: cat, dog, bird, odd\n" in out
    assert "Note: shapes without a box are left out: 1 point, 2 tags\n" in out

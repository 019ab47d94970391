"""Broken files of every format end in a message with file and line."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from retinanet.convert.readers import read_dataset
from retinanet.runtime.errors import UserError

DATA = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
XML = """<annotation>
<filename>1.png</filename>
<size><width>64</width><height>48</height></size>
<object>
<name>cat</name>
<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
</object>
</annotation>
"""


def write(files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


@pytest.fixture(autouse=True)
def _good(tmp_path, monkeypatch):
    """A good set of each format."""
    monkeypatch.chdir(tmp_path)
    for folder in ("yolo/images/train", "yolo/images/val", "voc/JPEGImages", "csv"):
        Path(folder).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(f"{folder}/1.png")
    write(
        {
            "yolo/data.yaml": DATA,
            "yolo/labels/val/1.txt": "",
            "yolo/labels/train/1.txt": "0 0.5 0.5 0.25 0.5\n\n1 0.1 0.1 0.2 0.2\n",
            "voc/Annotations/1.xml": XML,
            "voc/ImageSets/Main/train.txt": "1\n",
            "csv/train.csv": "1.png,2,3,20,30,cat\n1.png,5,5,9,9,dog\n",
            "csv/classes.csv": "cat,0\ndog,1\n",
        }
    )


def test_the_good_ones():
    (train, val) = read_dataset(Path("yolo"), "yolo").sets
    assert [box[:6] for box in train.images[0].boxes] == [(0, 24, 12, 16, 24, False), (1, 0, 0, 12.8, 9.6, False)]
    assert val.images[0].boxes == []
    (train,) = read_dataset(Path("voc"), "voc").sets
    assert [box[:6] for box in train.images[0].boxes] == [(0, 1, 2, 19, 28, False)]
    (train,) = read_dataset(Path("csv"), "csv").sets
    assert [box[:6] for box in train.images[0].boxes] == [(0, 2, 3, 18, 27, False), (1, 5, 5, 4, 4, False)]


LABELS, YAML = "yolo/labels/train/1.txt", "yolo/data.yaml"
YOLO_FAULTS = [
    ({LABELS: "0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25\n"}, f"{LABELS}:2: has 4 numbers"),
    ({LABELS: "0 0.5 0.5 0.25 0.5 0.9\n"}, f"{LABELS}:1: has 6 numbers"),
    ({LABELS: "\n\n2 0.5 0.5 0.25 0.5\n"}, f"{LABELS}:3: class '2' is not a number from 0 to 1"),
    ({LABELS: "-1 0.5 0.5 0.25 0.5\n"}, f"{LABELS}:1: class '-1'"),
    ({LABELS: "cat 0.5 0.5 0.25 0.5\n"}, f"{LABELS}:1: class 'cat'"),
    ({LABELS: "0.5 0.5 0.5 0.25 0.5\n"}, f"{LABELS}:1: class '0.5'"),
    ({LABELS: "0 0,5 0.5 0.25 0.5\n"}, f"{LABELS}:1: could not convert string to float: '0,5'"),
    ({LABELS: "0 nan 0.5 0.25 0.5\n"}, f"{LABELS}:1: has a number that is not finite"),
    ({LABELS: "0 0.5 0.5 inf 0.5\n"}, f"{LABELS}:1: has a number that is not finite"),
    ({LABELS: "0 32 24 16 24\n"}, f"{LABELS}:1: 32 is not from 0 to 1"),
    ({LABELS: "0 0.5 0.5 -0.25 0.5\n"}, f"{LABELS}:1: -0.25 is not from 0 to 1"),
    ({LABELS: "0 0.5 0.5 0 0.5\n"}, f"{LABELS}:1: the box has no area"),
    ({LABELS: b"0 0.5 0.5 0.2 0.2\n\xff\xfe\n"}, f"{LABELS}:2: is not UTF-8 text"),
    ({YAML: "train: images/train\n"}, f"{YAML}: has no list of classes"),
    ({YAML: "train: images/train\nnames: []\n"}, f"{YAML}: has no list of classes"),
    ({YAML: "train: images/train\nnames: [cat, cat]\n"}, f"{YAML}: two classes are called 'cat'"),
    ({YAML: "train: images/train\nnames: {0: cat, 2: dog}\n"}, f"{LABELS}:3: class '1' is not one of [0, 2]"),
    ({YAML: "train: images/train\nnames: {a: cat, b: dog}\n"}, f"{YAML}: names: has keys that are not the numbers"),
    ({YAML: "train: images/train\nnc: 3\nnames: [cat, dog]\n"}, f"{YAML}: says nc: 3, but names 2 classes"),
    ({YAML: "train:\nnames: [cat, dog]\n"}, f"{YAML}: names no set"),
    ({YAML: "train: images/nowhere\nnames: [cat, dog]\n"}, f"{YAML}: train: names images/nowhere, and there is no"),
    ({YAML: "train: labels/train\nnames: [cat, dog]\n"}, f"{YAML}: train: names labels/train, and no images are there"),
    ({YAML: "train: [images\nnames: ]\n"}, f"{YAML}:2: is not YAML"),
    ({YAML: "just a text\n"}, f"{YAML}: lacks the lines names: and train:"),
    (
        {YAML: "train: list.txt\nnames: [cat]\n", "yolo/list.txt": "\nno.png\n"},
        "yolo/list.txt:2: there is no image no.png",
    ),
    ({"yolo/images/train/2.png": "no"}, "yolo/images/train/2.png: yolo/images/train/2.png can't be read as an image"),
    ({"yolo/other.yaml": DATA, YAML: None}, None),  # one file of another name is taken
]
ANNOTATION, LIST = "voc/Annotations/1.xml", "voc/ImageSets/Main/train.txt"
VOC_FAULTS = [
    ({ANNOTATION: XML[:60]}, f"{ANNOTATION}:3: is not XML"),
    ({ANNOTATION: XML.replace("annotation>", "labels>")}, f"{ANNOTATION}:1: begins with <labels>"),
    ({ANNOTATION: XML.replace("<filename>1.png</filename>", "")}, f"{ANNOTATION}:1: <annotation> has no <filename>"),
    ({ANNOTATION: XML.replace("<name>cat</name>", "")}, f"{ANNOTATION}:4: <object> has no <name>"),
    ({ANNOTATION: XML.replace("bndbox", "polygon")}, f"{ANNOTATION}:4: an object without <bndbox>"),
    ({ANNOTATION: XML.replace("<ymax>30</ymax>", "")}, f"{ANNOTATION}:6: <bndbox> has no <ymax>"),
    ({ANNOTATION: XML.replace(">30<", ">thirty<")}, f"{ANNOTATION}:6: <ymax> is 'thirty', not a number"),
    ({ANNOTATION: XML.replace(">30<", ">nan<")}, f"{ANNOTATION}:6: <ymax> is 'nan', not a number"),
    ({ANNOTATION: XML.replace(">30<", ">1<")}, f"{ANNOTATION}:6: xmax or ymax is below xmin or ymin"),
    ({ANNOTATION: XML.replace(">64<", ">65<")}, f"{ANNOTATION}:3: says 65 x 48, but voc/JPEGImages/1.png is 64 x 48"),
    ({ANNOTATION: f'<!DOCTYPE a [<!ENTITY b "c">]>\n{XML}'}, f"{ANNOTATION}:1: declares a document type"),
    ({ANNOTATION: XML.encode().replace(b"cat", b"\xff")}, f"{ANNOTATION}:5: is not UTF-8 text (byte 0xff). Declare"),
    ({ANNOTATION: ""}, f"{ANNOTATION}:1: is not XML"),
    ({"voc/Annotations/2.xml": XML.replace("1.png", "2.png")}, "voc/Annotations/2.xml:1: there is no image 2.png"),
    ({LIST: "1\n7\n"}, f"{LIST}:2: there is no Annotations/7.xml"),
    ({LIST: "\n"}, f"{LIST}: lists no image"),
    ({"voc/labels.txt": "dog\n"}, f"{ANNOTATION}:4: class 'cat' is not in voc/labels.txt"),
    ({"voc/labels.txt": "cat\ncat\n"}, "voc/labels.txt: two classes are called 'cat'"),
    ({"voc/JPEGImages/1.png": "no"}, f"{ANNOTATION}: voc/JPEGImages/1.png can't be read as an image"),
    ({ANNOTATION: XML[: XML.index("<object>")] + "</annotation>"}, "voc/Annotations: no file has an object"),
]
TABLE, CLASSES = "csv/train.csv", "csv/classes.csv"
CSV_FAULTS = [
    ({TABLE: "1.png,2,3,20,30\n"}, f"{TABLE}:1: has 5 columns, not 6"),
    ({TABLE: "1.png,2,3,20,30,cat\n1.png,2,3,20,30,cat,x\n"}, f"{TABLE}:2: has 7 columns"),
    (
        {TABLE: "path,cx,cy,w,h,class\n1.png,2,3,20,30,cat\n"},
        f"{TABLE}:1: has other column names. Call the columns path,x1,y1,x2,y2,class, in any order",
    ),
    ({TABLE: "1.png,2,3,twenty,30,cat\n"}, f"{TABLE}:1: could not convert string to float: 'twenty'. Write pixels"),
    ({TABLE: "1.png,2,3,nan,30,cat\n"}, f"{TABLE}:1: has a number that is not finite"),
    ({TABLE: "1.png,20,3,2,30,cat\n"}, f"{TABLE}:1: x2 or y2 is not above x1 or y1"),
    ({TABLE: "1.png,2,3,20,3,cat\n"}, f"{TABLE}:1: x2 or y2 is not above x1 or y1"),
    ({TABLE: "1.png,2,3,20,30,cow\n"}, f"{TABLE}:1: class 'cow' is not in the list of classes (cat, dog)"),
    ({TABLE: "1.png,2,3,,30,cat\n"}, f"{TABLE}:1: a part of the box or its class is missing"),
    ({TABLE: "1.png,2,3,20,30,\n"}, f"{TABLE}:1: a part of the box or its class is missing"),
    ({TABLE: ",2,3,20,30,cat\n"}, f"{TABLE}:1: doesn't name an image"),
    ({TABLE: "1.png,,,,,\n\n2.png,2,3,20,30,cat\n"}, f"{TABLE}:3: there is no image csv/2.png"),
    ({TABLE: '1.png,2,3,20,30,"cat\n'}, f"{TABLE}:1: is not CSV"),
    ({TABLE: b"1.png,2,3,20,30,cat\n\xff,2,3,20,30,cat\n"}, f"{TABLE}:2: is not UTF-8 text"),
    ({TABLE: ""}, f"{TABLE}: is empty"),
    ({CLASSES: "cat,0\ndog,two\n"}, f"{CLASSES}:2: is not a row class,number"),
    ({CLASSES: "cat,0\ndog\n"}, f"{CLASSES}:2: is not a row class,number"),
    ({CLASSES: "cat,0\ndog,0\n"}, f"{CLASSES}:2: number 0 already belongs to 'cat'"),
    ({CLASSES: "cat,0\ndog,2\n"}, f"{CLASSES}: the numbers of the classes have gaps"),
    ({CLASSES: "cat,0\ncat,1\n"}, f"{CLASSES}: two classes are called 'cat'"),
    ({CLASSES: "class,number\ncat,0\ndog,1\n"}, f"{CLASSES}:1: is not a row class,number"),
    ({"csv/more.csv": "cow,0\n"}, "csv: classes.csv and more.csv both have two columns"),
    ({"csv/1.png": "no"}, f"{TABLE}:1: csv/1.png can't be read as an image"),
]
FAULTS = {"yolo": YOLO_FAULTS, "voc": VOC_FAULTS, "csv": CSV_FAULTS}


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [(kind, *fault) for kind, faults in FAULTS.items() for fault in faults],
)
def test_broken(kind, files, message):
    for name in [name for name, content in files.items() if content is None]:
        Path(name).unlink()
    write({name: content for name, content in files.items() if content is not None})

    if message is None:
        read_dataset(Path(kind), kind)
        return
    with pytest.raises(UserError) as caught:
        read_dataset(Path(kind), kind)
    assert str(caught.value).startswith(message), str(caught.value)


@pytest.mark.parametrize(("kind", "least"), [("yolo", 20), ("voc", 20), ("csv", 20)])
def test_there_are_enough_kinds(kind, least):
    assert len(FAULTS[kind]) >= least


def test_outlines_become_boxes_and_roboflows_paths_are_found():
    write({LABELS: "1 0.25 0.25 0.5 0.25 0.5 0.75\n", YAML: "train: ../train/images\nnames: ['0', b]\n"})
    shutil.copytree("yolo/images/train", "yolo/train/images")
    shutil.copytree("yolo/labels/train", "yolo/train/labels")

    (train,) = read_dataset(Path("yolo/data.yaml"), "yolo").sets

    assert [box[:6] for box in train.images[0].boxes] == [(1, 16, 12, 16, 24, False)]


def test_turned_images_have_the_size_that_they_are_seen_in():
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save("yolo/images/train/1.png", exif=exif)

    image = read_dataset(Path("yolo"), "yolo").sets[0].images[0]

    assert (image.width, image.height) == (48, 64)
    assert image.boxes[0][:6] == (0, 18, 16, 12, 32, False)

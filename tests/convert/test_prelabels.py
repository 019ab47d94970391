"""What a detector finds is written as annotations that read back as the same boxes, classes and scores."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from support.conversions import converted

from retinanet.coco.annotations import read_annotations
from retinanet.coco.results import Found
from retinanet.convert.prelabels import DistinctNames, labelled_image, prelabels
from retinanet.convert.writers import write
from retinanet.runtime.errors import UserError

KINDS = ("coco", "yolo", "voc")
CLASSES, IDS = ["cat", "traffic light = red"], [3, 7]
ROUNDING = {"yolo": (2e-3, 2e-6), "voc": (1.0, 0.0), "coco": (2e-6, 0.0)}  # pixels, and a share of the side
STEMS = (
    "a",
    "img -1",
    "it's",
    "50%",
    "a.b.c",
    "[x]{y}",
    "null",
    "=1+1",
    "猫",
    "e\u0301te\u0301",
    "cam 1/a",
    "A",
    "b/a",
)
SIDES = (90, 61)  # width and height of the upright pictures
CASES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def photo(path: Path, orientation: int, number: int) -> None:
    """Writes a photograph that an EXIF orientation turns upright to a picture of SIDES."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    size = SIDES if orientation < 5 else SIDES[::-1]
    Image.new("RGB", size, (number * 20 % 256, 90, 90)).save(path, exif=exif)


def found(boxes: list[tuple[float, ...]]) -> Found:
    """Detections at the (x1, y1, x2, y2) in fractions of the image, of both classes in turn."""
    corners = np.array(boxes, np.float64).reshape(-1, 4) * [*SIDES, *SIDES]
    scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32).astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    return Found(np.zeros(len(boxes), np.int64), np.arange(len(boxes)) % 2, scores, corners)


def written(kind: str, names: list[str], detections: list[Found], folder: Path) -> list[str]:
    """Writes the pre-labels of the images `names` in source/ to `folder`; returns the notes."""
    size = SIDES[1], SIDES[0]
    images = [
        labelled_image(Path("source") / name, name, size, each, number)
        for number, (name, each) in enumerate(zip(names, detections, strict=True), 1)
    ]
    labelled = prelabels(images, kind, CLASSES, IDS, Path("best.pt"))
    write(labelled, kind, folder, "link")
    return list(labelled.notes)


def scores_in(kind: str, folder: Path, name: str) -> list[float]:
    """The scores that a file of the format has for an image."""
    if kind == "coco":
        content = json.loads((folder / "train.json").read_text())
        image_id = next(image["id"] for image in content["images"] if image["file_name"] == name)
        return [entry["score"] for entry in content["annotations"] if entry["image_id"] == image_id]
    if kind == "yolo":
        return json.loads((folder / "scores.json").read_text())[f"labels/train/{Path(name).with_suffix('.txt')}"]
    root = ElementTree.parse((folder / "Annotations" / name).with_suffix(".xml")).getroot()
    return [float(element.text) for element in root.iter("confidence")]


FRACTIONS = st.floats(0, 1).map(lambda share: round(share, 7))
BOXES = st.builds(
    lambda x, y, wide, high: (x * (1 - wide), y * (1 - high), x * (1 - wide) + wide, y * (1 - high) + high),
    *(FRACTIONS, FRACTIONS),
    *[st.one_of(st.floats(1e-4, 1), st.sampled_from([1e-4, 0.01, 1.0]))] * 2,
)
IMAGES = st.lists(
    st.tuples(st.sampled_from(STEMS), st.integers(1, 8), st.lists(BOXES, max_size=4)),
    min_size=1,
    max_size=9,
    unique_by=lambda image: image[0].lower(),
)


@pytest.mark.parametrize("kind", KINDS)
@CASES
@given(IMAGES)
def test_they_read_back_as_what_was_detected(kind, tmp_path_factory, images):
    """With odd names, all EXIF orientations, images without detections, and boxes of a hundredth of a pixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("set"))
        names = [f"{stem}.jpg" for stem, *_ in images]
        for number, (name, orientation) in enumerate(zip(names, (each[1] for each in images), strict=True)):
            photo(Path("source") / name, orientation, number)
        detections = [found(boxes) for *_, boxes in images]
        assert written(kind, names, detections, Path("there")) == []

        converted("there", "--from", kind, output_path="back")

        back = read_annotations("back/train.json")
        rows_by_name = {back.file_name(row): row for row in range(len(names))}
        if len(names) > 1 or "/" not in names[0]:  # a folder that all images are in may not be part of the name
            assert {*rows_by_name} == {*names}
        for name, each in zip(names, detections, strict=True):
            row = rows_by_name.get(name, 0)
            assert back.sizes[row].tolist() == [SIDES[1], SIDES[0]]
            mine = slice(back.first[row], back.first[row + 1])
            by_name = [back.class_names[label] for label in back.labels[mine]]
            assert by_name == [CLASSES[label] for label in each.labels]
            corners, again = (
                np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1) for b in (each.boxes, back.boxes[mine])
            )
            pixels, share = ROUNDING[kind]
            assert (abs(corners - again) <= pixels + share * max(SIDES)).all()
            if len(each.scores):
                assert scores_in(kind, Path("there"), name) == each.scores.tolist()
        if kind == "coco":
            assert (back.class_names, back.category_ids) == (CLASSES, IDS)


def test_a_coco_file_has_what_tools_ask_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.jpg", "b.jpg")):
        photo(Path("source") / name, 6, number)
    written("coco", ["a.jpg", "b.jpg"], [found([(0.1, 0.2, 0.5, 1.00001)]), found([])], Path("there"))
    content = json.loads(Path("there/train.json").read_text())
    assert content["images"] == [
        {"id": number, "file_name": name, "width": 90, "height": 61} for number, name in ((1, "a.jpg"), (2, "b.jpg"))
    ]
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "traffic light = red"}]
    (entry,) = content["annotations"]
    assert entry["bbox"] == pytest.approx([9, 12.2, 36, 48.8])
    assert entry["bbox"][1] + entry["bbox"][3] <= 61
    assert entry["area"] == pytest.approx(36 * 48.8)
    assert (
        entry.items()
        >= {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "iscrowd": 0,
            "segmentation": [],
            "score": float(np.float32(0.9)),
        }.items()
    )


def test_images_of_one_name_stay_apart():
    names = DistinctNames()
    wanted = {
        "a.jpg": "a.jpg",
        "/sub/../a.jpg": "sub/a.jpg",
        "A.jpg": "A_2.jpg",
        "../a.png": "a_3.png",  # a.txt or a.xml is the first one's
        ".hidden/b.c.jpg": "hidden/b.c.jpg",
        "hidden/b.c.jpg": "hidden/b.c_2.jpg",
        "a_2.jpg": "a_2_2.jpg",
        "...": "_",
    }
    assert {name: names.add(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("kind", "class_name", "file_name", "message"),
    [
        ("voc", "a\nb", "a.jpg", r"best.pt: the class 'a\\nb' begins or ends with a space.*the PASCAL VOC format"),
        ("yolo", "cat", "photo", "finds images by their suffix"),
    ],
)
def test_what_a_format_can_not_hold_is_refused(kind, class_name, file_name, message):
    image = labelled_image(Path(file_name), file_name, (61, 90), found([]), 1)
    with pytest.raises(UserError, match=message):
        prelabels([image], kind, [class_name], [1], Path("best.pt"))

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.coco.annotations import has_objects, placeholder_note, read_annotations, require_same_classes
from retinanet.runtime.errors import UserError

GOOD = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50},
        {"id": 3, "file_name": "sub/b.jpg", "width": 60, "height": 80},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 5, "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [10.5, 0, 20, 30]},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 5, 6]},
    ],
}

MASK = [[1, 1, 9, 1, 9, 9]]
RUNS = {"counts": [4, 9, 7], "size": [4, 5]}


def load(tmp_path, content):
    path = tmp_path / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(path)


def changed(part, row, **values):
    content = json.loads(json.dumps(GOOD))
    content[part][row].update(values)
    return content


def test_packed_by_image_with_labels_by_category_id(tmp_path):
    loaded = load(tmp_path, GOOD)
    assert loaded.class_names == ["cat", "dog"]
    assert loaded.category_ids == [2, 9]
    assert loaded.image_ids.tolist() == [7, 3]
    assert loaded.sizes.tolist() == [[50, 100], [80, 60]]
    assert loaded.first.tolist() == [0, 1, 3]
    assert loaded.boxes.tolist() == [[10.5, 0, 20, 30], [1, 2, 3, 4], [0, 0, 5, 6]]
    assert loaded.labels.tolist() == [0, 1, 0]
    assert loaded.crowds.tolist() == [False, True, False]
    assert loaded.areas.tolist() == [600, 5, 30]  # stated, or width x height


def test_null_counts_as_absent(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(changed("annotations", 0, area=None, iscrowd=None)))
    (tmp_path / "b.json").write_text(json.dumps({**GOOD, "annotations": None}))
    annotations = read_annotations(tmp_path / "a.json")
    left, top, width, height = GOOD["annotations"][0]["bbox"]
    row = annotations.boxes.tolist().index([left, top, width, height])
    assert (annotations.areas[row], annotations.crowds[row]) == (width * height, False)
    assert len(read_annotations(tmp_path / "b.json").boxes) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid JSON"),
        (json.dumps(GOOD)[:-40], "Is it cut off"),
        ("[1, 2]", "holds a list"),
        ("[" * 100_000, "not valid JSON"),
        ({**GOOD, "images": []}, "has no images"),
        ({**GOOD, "categories": []}, "has no categories"),
        ({**GOOD, "images": "many"}, '"images" must be a list'),
        ({**GOOD, "annotations": [3]}, '"annotations" must be a list'),
        (changed("images", 1, id=7), "image id 7 appears twice"),
        (changed("images", 1, id="7"), "whole numbers"),
        (changed("images", 1, id=2**70), "whole numbers"),
        (changed("images", 1, file_name=None), "no file_name"),
        (changed("images", 1, file_name="a\ud800.jpg"), r"file_name 'a\\ud800.jpg' of image 3 contains half"),
        (changed("images", 1, file_name="../../secret.jpg"), "leaves the image folder"),
        (changed("images", 1, file_name="/etc/secret.jpg"), "leaves the image folder"),
        (changed("images", 1, file_name="a\0b"), "leaves the image folder"),
        (changed("images", 0, width=0), "has the width 0. Write the number of pixels"),
        (changed("images", 0, height="50"), "has the height '50'. Write the number of pixels, without quotes"),
        (changed("images", 0, height=None), "has no height. Write the number of pixels"),
        (changed("images", 0, height=50.0), "has the height 50.0. Write 50, without a decimal point"),
        (changed("categories", 0, id=2), "category id 2 appears twice"),
        (changed("categories", 0, name=None), "has no name. Write text"),
        (changed("categories", 0, name=7), 'has the name 7. Write "7", with quotes'),
        (changed("annotations", 1, image_id=8), "annotation 2: image_id 8 is not in"),
        (changed("annotations", 1, category_id=1), "annotation 2: category_id 1 is not in"),
        (changed("annotations", 1, image_id="7"), "annotation 2: image_id '7' is not a whole number.* without quotes"),
        (changed("annotations", 1, category_id="2"), "annotation 2: category_id '2' is not a whole number.* quotes"),
        (changed("annotations", 1, image_id=7.0), r"annotation 2: image_id 7\.0 is not a whole number"),
        (changed("categories", 0, id="9"), "has the id '9'. Write a whole number without quotes"),
        (changed("images", 0, file_name="C:\\a.jpg"), "looks like a Windows path .* relative"),
        (changed("images", 0, file_name="c:/a.jpg"), "looks like a Windows path"),
        (changed("images", 0, file_name="\\\\server\\a.jpg"), "looks like a Windows path"),
        (changed("images", 0, file_name="x\\..\\..\\a.jpg"), "looks like a Windows path"),
        (changed("annotations", 1, bbox=None, segmentation=MASK), "annotation 2: has a segmentation but no bbox"),
        (changed("annotations", 1, bbox=[], segmentation=MASK), "annotation 2: has a segmentation but no bbox"),
        (
            changed("annotations", 1, bbox=[0, 0, 0, 0], segmentation=MASK),
            "annotation 2: has a segmentation but no bbox",
        ),
        (changed("annotations", 1, bbox=[0, 0, 0, 0], segmentation=RUNS, area=9), "a segmentation but no bbox"),
        (changed("annotations", 1, bbox=None), "annotation 2: bbox None must be four"),
        (changed("annotations", 1, bbox=["1", 2, 3, 4]), "annotation 2: bbox .* without quotes"),
        (changed("annotations", 1, bbox="1,2,3,4"), "annotation 2: bbox .* without quotes"),
        (changed("annotations", 1, bbox=[0, 0, -1, 5]), "annotation 2: bbox .* negative size"),
        (changed("annotations", 1, bbox=[0, 0, float("nan"), 5]), "annotation 2: bbox .* finite"),
        (changed("annotations", 1, bbox=[0, 0, float("inf"), 5]), "annotation 2: bbox .* finite"),
        (changed("annotations", 1, bbox=[0, 0, 10**400, 5]), "annotation 2: bbox .* finite"),
        (changed("annotations", 1, bbox=[0, 0, 5]), "annotation 2: bbox"),
        (changed("annotations", 1, bbox=[0, 0, True, 5]), "annotation 2: bbox"),
        (changed("annotations", 1, area=float("nan")), "annotation 2: area"),
        (changed("annotations", 1, iscrowd="no"), "annotation 2: iscrowd"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, words):
    with pytest.raises(UserError, match=words) as refused:
        load(tmp_path, content)
    assert str(refused.value).startswith(str(tmp_path / "set.json"))


@pytest.mark.parametrize(
    "values",
    [
        {"segmentation": MASK},
        {"segmentation": []},
        {"segmentation": MASK, "bbox": [3, 3, 4, 0]},  # a line: COCO has some
        {"segmentation": [[3, 3, 3.6, 3, 3.6, 3.6]], "bbox": [3, 3, 0, 0]},  # rounded to nothing
        {"segmentation": [[3, 3, 9, 3]], "bbox": [3, 3, 0, 0]},
        {"segmentation": [[3], ["a", 1], 5, None], "bbox": [3, 3, 0, 0]},
        {"segmentation": 5, "bbox": [3, 3, 0, 0]},
        {"segmentation": RUNS, "bbox": [0, 0, 0, 0], "area": 0},  # of a mask that was cut off
        {"bbox": [0, 0, 0, 0]},
    ],
)
def test_segmentations_that_a_box_may_have(tmp_path, values):
    load(tmp_path, changed("annotations", 1, **values))


@pytest.mark.parametrize("name", ["a\\b.jpg", "a..\\b.jpg", "c:d.jpg", "ab:/c.jpg", "a/..b.jpg"])
def test_names_that_files_may_have(tmp_path, name):
    assert load(tmp_path, changed("images", 0, file_name=name)).file_name(0) == name


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: no such file"):
        read_annotations(tmp_path / "nothing.json")


numbers = st.booleans() | st.integers() | st.floats()
values = numbers | st.none() | st.text(max_size=3) | st.lists(numbers, max_size=5)


@settings(max_examples=100, deadline=None)
@given(part=st.sampled_from(["images", "categories", "annotations"]), data=st.data())
def test_any_value_anywhere_is_taken_or_refused_clearly(tmp_path_factory, part, data):
    row = data.draw(st.integers(0, 1))
    key = data.draw(st.sampled_from(sorted(GOOD[part][row])))
    with contextlib.suppress(UserError):
        load(tmp_path_factory.mktemp("any"), changed(part, row, **{key: data.draw(values)}))


def only(tmp_path, boxes, crowd=0):
    annotations = [
        {"id": i, "image_id": [7, 3][i % 2], "category_id": 2, "bbox": box, "iscrowd": crowd}
        for i, box in enumerate(boxes)
    ]
    return load(tmp_path, {**GOOD, "annotations": annotations})


@pytest.mark.parametrize(
    ("boxes", "crowd", "real"),
    [
        ([], 0, False),
        ([[0, 0, 0, 0]], 0, False),
        ([[1, 1, 9, 9], [1, 1, 9, 9]], 0, False),  # placeholders: one in each image
        ([[1, 1, 9, 9], [1, 1, 9, 9]], 1, False),
        ([[1, 1, 9, 9], [1, 1, 9, 9], [1, 1, 9, 9]], 0, True),  # two in an image
        ([[1, 1, 9, 9], [1, 1, 9, 9], [1, 1, 0, 9]], 0, True),
        ([[1, 1, 9, 9], [1, 1, 9, 8]], 0, True),
        ([[1, 1, 9, 9]], 0, True),
        ([[1, 1, 9, 9]], 1, False),
    ],
)
def test_whether_there_is_something_to_evaluate(tmp_path, boxes, crowd, real):
    assert has_objects(only(tmp_path, boxes, crowd)) is real


def test_one_box_for_all_is_real_where_classes_differ_or_an_image_has_none(tmp_path):
    annotations = [{"id": id, "image_id": id, "category_id": 2, "bbox": [1, 1, 9, 9]} for id in (3, 7)]
    fake = load(tmp_path, {**GOOD, "annotations": annotations})
    assert not has_objects(fake)
    assert placeholder_note(fake) == (
        ": it looks like placeholder boxes: each of the 2 images has exactly one object, all of class 'cat' with bbox "
        "[1.0, 1.0, 9.0, 9.0]"
    )
    third = {"id": 8, "file_name": "c.jpg", "width": 60, "height": 80}
    for content in (
        {**GOOD, "annotations": [annotations[0], annotations[1] | {"category_id": 9}]},
        {**GOOD, "annotations": annotations, "images": [*GOOD["images"], third]},
        {**GOOD, "annotations": [*annotations, annotations[0] | {"id": 9, "iscrowd": 1}]},
    ):
        real = load(tmp_path, content)
        assert has_objects(real)
        assert placeholder_note(real) == ""


def test_one_box_for_all_is_real_where_it_is_the_whole_image(tmp_path):
    content = json.loads(json.dumps(GOOD))
    for image in content["images"]:
        image.update(width=60, height=50)
    for annotation in content["annotations"]:
        annotation.update(bbox=[0, 0, 60, 50], iscrowd=0)
    assert has_objects(load(tmp_path, content))


def test_annotations_may_be_absent(tmp_path):
    content = {key: value for key, value in GOOD.items() if key != "annotations"}
    assert not has_objects(load(tmp_path, content))


def test_other_classes_are_refused(tmp_path):
    loaded = load(tmp_path, GOOD)
    require_same_classes(loaded, ["cat", "dog"], [2, 9], tmp_path)
    for names, ids in ((["cat", "bird"], [2, 9]), (["cat", "dog"], [1, 2]), (["cat"], [2])):
        with pytest.raises(UserError, match="has the categories"):
            require_same_classes(loaded, names, ids, tmp_path)
    with pytest.raises(UserError, match=r"categories \{9: 'dog'\}, but .* has \{9: 'bird'\}\. Use"):
        require_same_classes(loaded, ["cat", "bird"], [2, 9], tmp_path)  # those alone that differ
    with pytest.raises(UserError, match=r"\{0: None, .* 5: None\}, but .* \(79 differ\)"):
        require_same_classes(loaded, ["cat"] * 80, list(range(80)), tmp_path)

"""Decisions about suspected label mistakes become a new set, with those changes and no others."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from support.conversions import HEIGHT, WIDTH, coco_json, write

from retinanet.commands.convert import convert
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import convert_settings

BOX = [5, 6, 10.25, 12]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def content_of(file_names: list[str]) -> dict:
    """A cat in each image, with all that a COCO annotation may say."""
    content = coco_json(file_names, info={"year": 2024})
    for number, entry in enumerate(content["annotations"]):
        entry |= {
            "id": 100 + number,
            "segmentation": [[12, 8, 32, 8, 32, 32]],
            "area": 300.5,
            "attributes": {"n": number},
        }
    return content


def write_data(num_images: int = 7) -> None:
    for name in ("train", "val"):
        content = content_of([f"{name}{number}.png" for number in range(num_images)])
        write({f"set/{name}.json": json.dumps(content)})
        write({f"set/images/{name}/{entry['file_name']}": None for entry in content["images"]})


def write_decisions(*entries: dict, of: str = "train", **more: object) -> None:
    digest = hashlib.sha256(Path(f"set/{of}.json").read_bytes()).hexdigest()
    about = {"file": f"set/{of}.json", "sha256": digest}
    content = {"set_name": of, "annotations": about, "decisions": list(entries)} | more
    Path("decisions.json").write_text(json.dumps(content))


def decision(word: str, image_id: int, annotation_id: int | None = None, **parts: object) -> dict:
    names = {"category_id": None, "bbox": None, "file_name": "ignored"}
    return {"decision": word, "image_id": image_id, "annotation_id": annotation_id, **names, **parts}


def run(*words: object) -> None:
    assert convert(convert_settings(["set", "--decisions", "decisions.json", *map(str, words)])) == 0


def annotations_in(path: str) -> dict:
    return {entry["id"]: entry for entry in json.loads(Path(path).read_text())["annotations"]}


def test_of_two_labels_whose_ids_javascript_would_confuse_only_the_chosen_is_deleted():
    content = content_of(["0.png"])
    first = content["annotations"][0]
    content["annotations"] = [first | {"id": 2**53}, first | {"id": 2**53 + 1}]
    write({"set/train.json": json.dumps(content), "set/images/train/0.png": None})
    write_decisions(decision("delete", 1, str(2**53 + 1)))  # as the page saves it
    run("--output_path", "new")

    assert list(annotations_in("new/train.json")) == [2**53]


def test_each_decision_does_what_it_says_and_nothing_else_changes(capsys):
    write_data()
    before = {path: path.read_bytes() for path in Path("set").rglob("*") if path.is_file()}
    write_decisions(
        *(decision("right", 1, 100), decision("box", 2, 101, bbox=BOX, category_id=2)),
        *(decision("class", 3, 102, category_id=2, bbox=BOX), decision("both", 4, 103, category_id=2, bbox=BOX)),
        *(decision("add", 5, None, category_id=2, bbox=BOX), decision("delete", 6, 105), decision("skip", 7, 106)),
    )
    run("--output_path", "new")

    old, new = annotations_in("set/train.json"), annotations_in("new/train.json")
    assert {path: path.read_bytes() for path in Path("set").rglob("*") if path.is_file()} == before
    assert new.keys() == old.keys() - {105} | {107}
    unchanged = (100, 104, 106)
    assert [new[each] for each in unchanged] == [old[each] for each in unchanged]
    assert new[102] == old[102] | {"category_id": 2}
    for number, category_id in ((101, 1), (103, 2)):  # an outline and an area of the old box are gone
        wanted = old[number] | {"category_id": category_id, "bbox": BOX, "area": 123}
        del wanted["segmentation"]
        assert new[number] == wanted
    assert new[107] == {"id": 107, "image_id": 5, "category_id": 2, "bbox": BOX, "area": 123, "iscrowd": 0}
    assert json.loads(Path("new/val.json").read_text()) == json.loads(Path("set/val.json").read_text())
    assert (
        json.loads(Path("new/train.json").read_text())["images"] == json.loads(before[Path("set/train.json")])["images"]
    )
    out = capsys.readouterr().out
    assert (
        "Decisions on train: box changed (1), class changed (1), box and class changed (1), added (1), deleted (1), "
        "confirmed (1), skipped (1)\n"
    ) in out
    assert "  class changed: annotation 102 of train2.png, cat [12.0, 8.0, 20.0, 24.0] -> dog [12.0" in out
    assert "  deleted: annotation 105 of train5.png, cat [12.0, 8.0, 20.0, 24.0]\n" in out
    assert "Outlines (segmentation) left out, as their box changed: 2\n" in out


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv"])
def test_any_format_can_be_written_and_few_changes_are_shown(kind, capsys):
    write_data(8)
    write_decisions(*(decision("class", 1 + number, 100 + number, category_id=2) for number in range(8)), of="val")
    run("--output_path", "new", "--to", kind)
    out = capsys.readouterr().out
    assert "Decisions on val: class changed (8)\n" in out
    assert "  ... and 3 more\n" in out
    convert(convert_settings(["new", "--from", kind, "--output_path", "back"]))
    labels = {entry["category_id"] for entry in annotations_in("back/val.json").values()}
    assert labels == {json.loads(Path("back/val.json").read_text())["categories"][-1]["id"]}


def test_decisions_on_one_annotation_are_joined_and_equal_ones_count_once():
    write_data()
    twice = [decision("add", 5, None, category_id=2, bbox=BOX, suspect=number) for number in (3, 4)]
    write_decisions(
        decision("box", 2, 101, bbox=BOX, suspect=1),
        decision("class", 2, 101, category_id=2, suspect=2),
        decision("right", 2, 101, suspect=7),
        *twice,
        *(decision("delete", 6, 105, suspect=number) for number in (5, 6)),
    )
    run("--output_path", "new")
    new = annotations_in("new/train.json")
    assert (new[101]["bbox"], new[101]["category_id"]) == (BOX, 2)
    assert len(new) == 7
    assert new[107]["image_id"] == 5


def test_ids_that_a_browser_would_change_are_read_as_text():
    large = 2**53
    content = content_of(["train0.png", "train1.png"])
    for number, (image, label) in enumerate(zip(content["images"], content["annotations"], strict=True)):
        image["id"] = label["image_id"] = large + number
        label["id"] = large + number if number else 7.0
    content["categories"][1]["id"] = large + 1
    write(
        {
            "set/train.json": json.dumps(content),
            "set/images/train/train0.png": None,
            "set/images/train/train1.png": None,
        }
    )
    write_decisions(
        decision("class", f"{large + 1}", f"{large + 1}", category_id=f"{large + 1}"),
        decision("delete", f"{large}", "7.0"),
    )
    run("--output_path", "new")
    assert {number: label["category_id"] for number, label in annotations_in("new/train.json").items()} == {
        large + 1: large + 1
    }


def test_a_box_of_stored_pixels_is_turned_like_the_others():
    content = content_of(["a.jpg"])
    write({"set/train.json": json.dumps(content)})
    Path("set/images/train").mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save("set/images/train/a.jpg", exif=exif)
    write_decisions(decision("add", 1, None, category_id=2, bbox=[12, 8, 20, 24]))
    run("--output_path", "new")
    assert [entry["bbox"] for entry in annotations_in("new/train.json").values()] == [[16, 12, 24, 20]] * 2


CLASS = decision("class", 2, 101, category_id=2, suspect=1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([decision("maybe", 1, 100)], r"decisions.json: decision 1 \('maybe' on suspect None\) is none of right, box"),
        ([decision("box", 1, 100, bbox=[1, 2, 0, 3])], r"has the bbox \[1, 2, 0, 3\], not .* with an area"),
        ([decision("add", 1, None, category_id=1)], "has the bbox None"),
        ([decision("class", 1, 100)], "has the category_id None, not a whole number"),
        ([decision("skip", "a", 100)], "has the image_id 'a', not a whole number"),
        ([decision("class", 1, 100, category_id=9)], "about category 9, which is not in set/train.json"),
        ([decision("skip", 99, 100)], "about image 99, which is not in set/train.json"),
        ([decision("delete", 1, 101)], "annotation 101 of image 1, which is not in"),
        ([decision("delete", 1, None)], "annotation None of image 1, which is not in"),
        (
            [CLASS, decision("delete", 2, 101, suspect=5)],
            r"decision 1 \('class' on suspect 1\) and decision 2 \('delete' on suspect 5\) contradict each other about "
            "annotation 101 of image 2",
        ),
        ([decision("box", 2, 101, bbox=BOX), decision("both", 2, 101, bbox=[1, 2, 3, 4], category_id=1)], "contradict"),
        ([CLASS, decision("both", 2, 101, bbox=BOX, category_id=1)], "contradict each other about annotation 101"),
        ([CLASS, decision("right", 2, 101, suspect=1)], "contradict each other about suspect 1"),
    ],
)
def test_mistakes_in_decisions_are_named_and_nothing_is_written(entries, message):
    write_data()
    write_decisions(*entries)
    with pytest.raises(UserError, match=message):
        run("--output_path", "new")
    assert not os.path.exists("new")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "decisions.json: isn't a file of decisions that the page of check_labels saved"),
        (json.dumps(coco_json(["a.png"])), "isn't a file of decisions"),
        (
            '{"set_name": "train", "annotations": {"file": "x", "sha256": "y"}, "decisions": [1]}',
            "isn't a file of decisions",
        ),
        ("{", "decisions.json: not valid JSON"),
    ],
)
def test_another_file_is_refused(content, message):
    write_data()
    Path("decisions.json").write_text(content)
    with pytest.raises(UserError, match=message):
        run("--output_path", "new")


def test_a_set_that_changed_since_is_refused():
    write_data()
    write_decisions(CLASS)
    Path("set/train.json").write_text(json.dumps(content_of([f"train{number}.png" for number in range(7)]), indent=1))
    with pytest.raises(UserError, match=r"made for set/train.json \(the set train\), which has changed since"):
        run("--output_path", "new")
    Path("decisions.json").unlink()
    with pytest.raises(UserError, match=r"decisions.json: can't be read|no such file"):
        run("--output_path", "new")
    assert not os.path.exists("new")


def test_only_coco_sets_have_decisions():
    write_data()
    write_decisions(CLASS)
    convert(convert_settings(["set", "--to", "voc", "--output_path", "other"]))
    with pytest.raises(UserError, match="--decisions needs COCO annotations, but other is in the PASCAL VOC format"):
        convert(convert_settings(["other", "--decisions", "decisions.json", "--output_path", "new"]))

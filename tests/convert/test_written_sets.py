"""What is written can be read back, and what can't be expressed is refused before anything is placed."""

import json
import os
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from support.conversions import CLASSES, HEIGHT, ROW, WIDTH, coco_json, write

from retinanet.commands.convert import convert
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import convert_settings


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> None:
    convert(convert_settings([str(word) for word in words]))


def write_coco(content: dict, name: str = "train") -> None:
    images = {f"set/images/{name}/{entry['file_name']}": None for entry in content["images"]}
    write({f"set/{name}.json": json.dumps(content), **images})


def test_entries_of_a_coco_file_survive_a_split():
    content = coco_json([f"{number}.png" for number in range(8)], info={"year": 2024}, licenses=[{"id": 1}])
    content["categories"][0]["supercategory"] = "animal"
    for number, (image, entry) in enumerate(zip(content["images"], content["annotations"], strict=True)):
        image |= {"license": 1, "id": 2**33 + number}
        entry |= {"id": f"a{number}", "image_id": image["id"], "area": 150.0 + number, "iscrowd": number % 2}
        entry |= {
            "segmentation": [[12, 8, 32, 8, 32, 32]],
            "attributes": {"occluded": True},
            "bbox": [-3.25, 8, 20, 24],
        }
    write_coco(content)
    run("set/train.json", "--split", 0.5, 0.5, "--output_path", "data")
    halves = [json.loads(Path(f"data/{name}.json").read_text()) for name in ("train", "val")]
    for key in ("images", "annotations"):
        together = sorted((entry for half in halves for entry in half[key]), key=lambda entry: str(entry["id"]))
        assert together == content[key]
    assert all(half[key] == content[key] for half in halves for key in ("categories", "info", "licenses"))


def test_equal_ids_of_two_sets_are_counted_anew_which_is_said(capsys):
    for name in ("train", "val"):
        write_coco(coco_json([f"{name}{number}.png" for number in range(4)]), name)
    run("set", "--split", 0.5, 0.5, "--output_path", "data")
    for name in ("train", "val"):
        content = json.loads(Path(f"data/{name}.json").read_text())
        for key in ("images", "annotations"):
            assert len({entry["id"] for entry in content[key]}) == len(content[key])
    assert "the annotation ids of train are renumbered" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv"])
def test_boxes_past_the_border_are_clipped_and_those_without_area_are_left_out(kind, capsys):
    content = coco_json(["a.png"])
    boxes = [[-8, 12, 80, 24], [50, 40, 30, 30], [5, 5, 0, 3], [70, 5, 9, 9]]
    content["annotations"] = [
        {**content["annotations"][0], "id": number, "bbox": box} for number, box in enumerate(boxes)
    ]
    write_coco(content)
    run("set", "--to", kind, "--output_path", "there")
    out = capsys.readouterr().out
    assert "Note: boxes that reach past the border of their image are clipped: 2, as in a.png" in out
    assert "Note: boxes without area inside their image are left out: 2, as in a.png" in out
    assert "train: 1 image, 2 objects" in out
    run("there", "--output_path", "back")
    entries = json.loads(Path("back/train.json").read_text())["annotations"]
    assert [entry["bbox"] for entry in entries] == [[0, 12, 64, 24], [50, 40, 14, 8]]


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv"])
def test_two_classes_of_one_name_are_refused_with_both_ids(kind):
    content = coco_json(["a.png"])
    content["categories"][1]["name"] = "cat"
    write_coco(content)
    with pytest.raises(UserError, match=r"set: the categories 1 and 2 are both called 'cat'.*Merge them, or give each"):
        run("set", "--to", kind, "--output_path", "there")
    assert os.listdir() == ["set"]


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        ("yolo", ["a.png", "a.jpg"], "a.png has the same name without its suffix.*one annotation file for both"),
        ("voc", ["a.png", "a.jpg"], "a.png has the same name without its suffix"),
        ("voc", ["a\nb.png"], r"the name 'a\\nb.png' begins or ends with a space, or has a line break"),
        ("csv", ["a.png "], "the name 'a.png ' begins or ends with a space"),
        ("yolo", ["a.data"], "finds images by their suffix, such as .jpg, which 'a.data' doesn't have"),
    ],
)
def test_names_that_a_format_can_not_hold_are_refused(kind, names, message):
    content = coco_json(names)
    write({f"set/images/train/{number}.png": None for number in range(len(names))})
    for number, name in enumerate(names):
        Path(f"set/images/train/{number}.png").rename(f"set/images/train/{name}")
    Path("set/train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        run("set", "--to", kind, "--output_path", "there")
    assert os.listdir() == ["set"]


def test_a_name_that_is_not_utf8_is_refused_by_formats_with_names():
    name = os.fsdecode(b"caf\xe9")
    write({"set/data.yaml": f"train: images\n{CLASSES}", f"set/labels/{name}.txt": ROW, f"set/images/{name}.png": None})
    for kind in ("voc", "csv", "coco"):
        with pytest.raises(UserError, match=r"isn't UTF-8, which .* needs. Rename it or choose another"):
            run("set", "--to", kind, "--output_path", "there")
        assert os.listdir() == ["set"]
    run("set", "--to", "yolo", "--output_path", "there")
    assert Path(f"there/labels/train/{name}.txt").exists()


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
@pytest.mark.parametrize(
    "name", ["my photo.png", "WhatsApp Image 2023-01-01 at 10.00.00.png", "cam/a.png", "img -1.png"]
)
def test_names_with_spaces_and_folders_come_back(kind, name):
    write_coco(coco_json([name]))
    run("set", "--to", kind, "--output_path", "there")
    run("there", "--from", kind, "--output_path", "back")
    content = json.loads(Path("back/train.json").read_text())
    assert name.endswith(content["images"][0]["file_name"])
    assert [entry["bbox"] for entry in content["annotations"]] == [[12, 8, 20, 24]]


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
def test_images_of_another_size_than_annotated_are_refused(kind):
    content = coco_json(["a.png"])
    content["images"][0]["width"] = 640
    write_coco(content)
    if kind == "coco":  # which has the size itself; training compares the two
        run("set", "--output_path", "there")
        return
    with pytest.raises(UserError, match=r"set: says that a.png is 640 x 48, but .*a.png is 64 x 48"):
        run("set", "--to", kind, "--output_path", "there")
    assert os.listdir() == ["set"]


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
def test_boxes_of_the_stored_pixels_are_written_upright(kind):
    """The size says that the box is of the pixels as stored; outlines, which aren't turned, would lie beside it."""
    content = coco_json(["a.jpg"])
    content["annotations"][0]["segmentation"] = [[12, 8, 32, 8, 32, 32]]
    write({"set/train.json": json.dumps(content)})
    Path("set/images/train").mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save("set/images/train/a.jpg", exif=exif)
    run("set", "--to", kind, "--output_path", "there")
    run("there", "--from", kind, "--output_path", "back")
    again = json.loads(Path("back/train.json").read_text())
    assert (again["images"][0]["width"], again["images"][0]["height"]) == (HEIGHT, WIDTH)
    assert [entry["bbox"] for entry in again["annotations"]] == [[16, 12, 24, 20]]
    assert "segmentation" not in again["annotations"][0]


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
def test_links_to_images_hold_after_the_set_is_in_its_place(kind):
    write_coco(coco_json(["a.png"]))
    run("set", "--to", kind, "--output_path", "deep/there")
    (link,) = Path("deep/there").rglob("*.png")
    assert link.is_symlink()
    assert link.read_bytes() == Path("set/images/train/a.png").read_bytes()


def test_a_set_of_another_name_is_refused_where_the_format_has_no_place_for_it():
    write_coco(coco_json(["a.png"]), "frames")
    with pytest.raises(UserError, match="has a set 'frames', and the YOLO format has only train, val, test"):
        run("set/frames.json", "--set", "frames", "--to", "yolo", "--output_path", "there")
    run("set/frames.json", "--set", "frames", "--output_path", "there")
    assert sorted(os.listdir("there")) == ["frames.json", "images"]


@pytest.mark.parametrize("is_there", [False, True])
def test_what_fails_while_it_is_placed_leaves_nothing(monkeypatch, is_there):
    write_coco(coco_json(["a.png"]))
    if is_there:
        write({"there/README.md": "mine"})
    rename = os.rename

    def fails_at_the_annotations(source, target):
        if str(target).endswith("there/data.yaml"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_at_the_annotations)
    with pytest.raises(UserError, match=r"there: can't be written to .No space left"):
        run("set", "--to", "yolo", "--output_path", "there")
    assert sorted(os.listdir()) == ["set", "there"][: 1 + is_there]
    assert not is_there or os.listdir("there") == ["README.md"]


def test_a_writer_that_loses_something_is_found_out(monkeypatch):
    from retinanet.convert import write_others

    write_coco(coco_json(["a.png"]))
    monkeypatch.setattr(write_others, "_yolo_lines", lambda image: ["0 0.5 0.5 0.1 0.1\n"])
    with pytest.raises(
        UserError, match=r"couldn't be read again, so nothing is written.*a.png: Box.* would be read as"
    ):
        run("set", "--to", "yolo", "--output_path", "there")
    assert os.listdir() == ["set"]

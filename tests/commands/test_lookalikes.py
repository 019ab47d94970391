"""Images of val that look like training images are found, drawn, and left out of a second AP."""

import json
import re

import numpy as np
import pytest
from PIL import ImageOps
from support.data_folder import change_json
from support.photos import made_up_photo

pytestmark = pytest.mark.usefixtures("own_folder")
NUM_TRAIN, NUM_VAL, NUM_COPIES = 12, 6, 3
LINE = "without 3 images that check_data found to look like images in train"


def box_of(number):
    return [20 + number, 30, 100, 80]


@pytest.fixture
def folder(tmp_path):
    """Writes a data folder; the last val images are mirrored and cropped training images."""
    val = [made_up_photo(100 + number) for number in range(NUM_VAL)]
    copies = [ImageOps.mirror(made_up_photo(number)).crop((6, 5, 320, 240)) for number in range(NUM_COPIES)]
    sets = {"train": [made_up_photo(number) for number in range(NUM_TRAIN)], "val": [*val, *copies]}
    for name, pictures in sets.items():
        (tmp_path / "data" / "images" / name).mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        for number, picture in enumerate(pictures):
            picture.save(tmp_path / "data" / "images" / name / f"{number}.jpg", quality=80)
            size = {"width": picture.width, "height": picture.height}
            content["images"].append({"id": number, "file_name": f"{number}.jpg", **size})
            content["annotations"].append({"id": number, "image_id": number, "category_id": 1, "bbox": box_of(number)})
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "data"


@pytest.fixture
def results(tmp_path):
    """Writes a result file that is right on the copies only."""
    rows = [
        {"image_id": number, "category_id": 1, "bbox": box_of(number if number >= NUM_VAL else 150), "score": 0.9}
        for number in range(NUM_VAL + NUM_COPIES)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path / "rows.json"


@pytest.fixture
def check(script, folder, monkeypatch):
    """Runs the check without its charts, which take longest."""
    monkeypatch.setattr("retinanet.check_data.charts.draw", lambda *_: None)
    return lambda *arguments: script("retinanet/check_data/__main__", "--coco_path", folder, "--all", *arguments)


def test_they_are_found_and_drawn(check, folder):
    run = check()
    assert run.code == 1
    assert "- val: image_like_in_two_sets: 3 (an image that looks like one of an earlier set" in run.out
    assert "    image 6 (6.jpg) looks like image 0 (0.jpg) of train\n" in run.out
    assert "image_in_two_sets: " not in run.out.replace("image_like_in_two_sets: ", "")
    assert "\nPairs of images that look alike, in check_data_pairs.png\n" in run.out
    assert (folder.parent / "check_data_pairs.png").stat().st_size > 10_000


def test_images_with_the_same_pixels_keep_their_own_finding(check, folder):
    (folder / "images/val/0.jpg").write_bytes((folder / "images/train/5.jpg").read_bytes())
    run = check()
    assert re.findall(r"^- val: (image\S*in_two_sets): (\d+)", run.out, re.MULTILINE) == [
        ("image_in_two_sets", "1"),
        ("image_like_in_two_sets", "3"),
    ]


def test_without_look_alikes_nothing_is_said_or_drawn(check, folder):
    run = check("--sets", "train")
    assert (run.code, "look alike" in run.out) == (0, False)
    assert not (folder.parent / "check_data_pairs.png").exists()


def test_the_ap_is_said_without_them_once_check_data_knows_them(script, check, folder, results):
    flags = ("--coco_path", folder, "--set_name", "val", "--from_results", results, "--num_draws", 0)
    assert "look like" not in script("test", *flags).out
    check()
    run = script("test", *flags)
    assert run.code == 0
    (line,) = [line for line in run.out.splitlines() if "look like" in line]
    assert line == f"AP 0.000, AP50 0.000 {LINE}"
    assert re.search(r"^AP 0\.\d*[1-9]", run.out, re.MULTILINE)

    change_json(folder / "train.json", lambda content: content["images"].pop())
    assert "look like" not in script("test", *flags).out  # not of this training set


def test_that_ap_is_the_one_of_a_set_without_them(script, check, folder, results):
    rows = json.loads(results.read_text())
    draw = np.random.default_rng(0)
    for row in rows:
        row["bbox"] = [side + int(draw.integers(-8, 9)) for side in box_of(row["image_id"])]
        row["score"] = float(draw.random())
    results.write_text(json.dumps(rows))
    flags = ("--coco_path", folder, "--set_name", "val", "--from_results", results, "--num_draws", 0)
    check()
    (line,) = [line for line in script("test", *flags).out.splitlines() if line.endswith(LINE)]
    for part in ("images", "annotations"):
        change_json(folder / "val.json", lambda content, part=part: content.update({part: content[part][:NUM_VAL]}))
    results.write_text(json.dumps(rows[:NUM_VAL]))
    alone = next(line for line in script("test", *flags).out.splitlines() if line.startswith("AP 0"))
    assert line == f"{alone} {LINE}"

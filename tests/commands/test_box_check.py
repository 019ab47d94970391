"""check_data says from the pixels how boxes are meant, convert --boxes rewrites them, and train.py warns."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from support.data_folder import change_json
from support.readings import FILE_BOXES, write_scenes
from support.scripts import TINY

CHECK, CONVERT = "retinanet/check_data/__main__", "retinanet/convert/__main__"
NUM_IMAGES = 24
GIVEN = ["as_given"] * NUM_IMAGES


@pytest.fixture
def check(script, own_folder):
    def call(folder, *arguments):
        flags = ("--min_side", 64, "--max_side", 96, "--picture_path", "c.png")
        run = script(CHECK, "--coco_path", folder, *flags, *arguments)
        found = [line.split()[1:3] for line in run.out.splitlines() if line.startswith("- ") and ": boxes_" in line]
        return run.code, [f"{name}{kind}".rstrip(":") for name, kind in found], run.out

    return call


def test_right_boxes_fit(check, tmp_path):
    write_scenes(tmp_path / "data", "train", GIVEN)
    code, found, out = check("data")
    assert (code, found) == (0, [])
    assert "\n  train, all boxes: fit: none of the other readings fits better; z " in out
    assert f"{3 * NUM_IMAGES} objects in {NUM_IMAGES} images" in out
    assert not (tmp_path / "c_readings.png").exists()


def test_a_set_of_centres_is_named_drawn_and_mended_by_its_command(check, script, tmp_path):
    before = write_scenes(tmp_path / "data", "train", GIVEN)
    write_scenes(tmp_path / "data", "val", ["centres"] * NUM_IMAGES, seed=1)
    code, found, out = check("data")
    assert (code, found) == (1, ["val:boxes_read_otherwise"])
    start = "    all boxes: fit as centres (x and y are the centre of the box); z "
    (line,) = [line for line in out.splitlines() if line.startswith(start)]
    assert ", 72 objects in 24 images. Rewrite them: " in line
    with Image.open(tmp_path / "c_readings.png") as picture:
        assert picture.width > picture.height  # eight images in two rows
    assert "in c_readings.png: dashed lines show them as given" in out

    command = shlex.split(line.partition("Rewrite them: ")[2].replace("OUT", "out"))
    assert command[2:] == ["retinanet.convert", "data/val.json", "--boxes", "centres", "--output_path", "out"]
    assert script(CONVERT, *command[3:]).code == 0
    assert check("out", "--sets", "val")[:2] == (0, [])
    held, given = (json.loads((tmp_path / folder / "val.json").read_text()) for folder in ("data", "out"))
    for old, new in zip(held["annotations"], given["annotations"], strict=True):
        assert {**old, "bbox": 0} == {**new, "bbox": 0}  # ids and rows stay
    assert held["images"] == given["images"]
    assert before["annotations"][0]["id"] == 1


def test_both_sets_are_rewritten_by_one_command(check, tmp_path):
    for seed, name in enumerate(("train", "val")):
        write_scenes(tmp_path / "data", name, ["swapped"] * NUM_IMAGES, seed=seed)
    code, _, out = check("data")
    assert code == 1
    assert out.count("python -m retinanet.convert data --boxes swapped --output_path OUT") == 2


def test_no_pixels_leaves_it_out(check, tmp_path):
    write_scenes(tmp_path / "data", "train", ["centres"] * NUM_IMAGES)
    code, found, out = check("data", "--no_pixels")
    assert (code, found) == (0, [])
    assert "Do the boxes lie" not in out


def test_a_folder_of_mirrored_pictures_is_named(check, tmp_path):
    names = [f"{'ab'[number % 2]}/{number}.png" for number in range(2 * NUM_IMAGES)]
    write_scenes(tmp_path / "data", "train", ["as_given", "mirrored"] * NUM_IMAGES, names=names)
    code, found, out = check("data")
    assert (code, found) == (1, ["train:boxes_read_otherwise"])
    assert "\n  train, the other boxes: fit: " in out
    assert "\n  train, folder b: fit as mirrored (the boxes belong to the mirrored picture); z " in out
    assert "FILE --boxes mirrored" in out


def test_a_source_of_centres_is_named(check, tmp_path):
    write_scenes(tmp_path / "data", "train", ["centres", "as_given"] * NUM_IMAGES)

    def with_sources(content):
        for entry in content["annotations"]:
            entry["source"] = ["tool A", "tool B"][entry["image_id"] % 2 == 0]

    change_json(tmp_path / "data" / "train.json", with_sources)
    assert "train, source tool A: fit as centres" in check("data")[2]


def test_boxes_of_stored_pixels_are_named_with_the_flag_that_cures_them(check, tmp_path):
    write_scenes(tmp_path / "data", "train", ["as_given", "half_turn"] * NUM_IMAGES, exif=3)
    # The pictures are turned when they are read, so their boxes, right in the stored pixels, must be written so.
    change_json(tmp_path / "data" / "train.json", _turned_back)
    code, found, out = check("data")
    assert (code, found) == (1, ["train:boxes_read_otherwise"])
    assert "EXIF orientation 3: fit as half turn" in out
    assert "Pass --exif raw to train.py, vis.py, check_data and convert" in out
    code, found, out = check("data", "--exif", "raw")
    assert (code, found) == (0, [])


def _turned_back(content):
    """Gives the boxes of every other picture as its stored pixels have them."""
    for entry in content["annotations"]:
        if entry["image_id"] % 2 == 0:
            width, height = 144, 96
            x, y, wide, high = entry["bbox"]
            entry["bbox"] = [width - x - wide, height - y - high, wide, high]


def test_boxes_given_to_the_next_image_are_named(check, tmp_path):
    content = write_scenes(tmp_path / "data", "train", ["as_given"] * 40)

    def one_further(content):
        for entry in content["annotations"]:
            entry["image_id"] = entry["image_id"] % 40 + 1

    change_json(tmp_path / "data" / "train.json", one_further)
    code, found, out = check("data")
    assert (code, found) == (1, ["train:boxes_fit_no_reading"])
    assert "fit as boxes of the previous image, in the order of the file's images" in out
    assert (tmp_path / "c_readings.png").exists()
    assert len(content["annotations"]) == 120


def test_noise_is_a_note_and_few_boxes_only_a_line(check, tmp_path):
    write_scenes(tmp_path / "data", "train", GIVEN)
    draw = np.random.default_rng(0)
    for path in (tmp_path / "data" / "images" / "train").iterdir():
        Image.fromarray(draw.integers(0, 255, (96, 144, 3), dtype=np.uint8)).save(path)
    write_scenes(tmp_path / "data", "val", GIVEN[:3], seed=1)
    code, found, out = check("data")
    assert (code, found) == (0, ["train:boxes_untold"])
    assert "\n  val, all boxes: too few to tell: 9 objects in 3 images" in out


def test_pictures_that_can_not_be_read_are_left_out(check, tmp_path):
    write_scenes(tmp_path / "data", "train", ["centres"] * 30)
    for number in range(1, 5):
        (tmp_path / f"data/images/train/{number:03d}.png").write_bytes(b"no picture")
    code, found, out = check("data")
    assert (code, found) == (1, ["train:boxes_read_otherwise"])
    assert "78 objects in 26 images" in out


@pytest.mark.parametrize("name", FILE_BOXES)
def test_convert_reads_boxes_as_told(script, tmp_path, own_folder, name):
    right = write_scenes(tmp_path / "right", "train", GIVEN[:2])
    write_scenes(tmp_path / "held", "train", [name] * 2)
    assert script(CONVERT, "held", "--boxes", name, "--output_path", "out").code == 0
    written = json.loads((tmp_path / "out" / "train.json").read_text())
    for entry, expected in zip(written["annotations"], right["annotations"], strict=True):
        assert entry["bbox"] == pytest.approx(expected["bbox"], abs=1e-5)
        assert entry["area"] == pytest.approx(expected["area"], rel=1e-5)
        assert {**entry, "bbox": 0, "area": 0} == {**expected, "bbox": 0, "area": 0}


def test_areas_of_masks_stay(script, tmp_path, own_folder):
    write_scenes(tmp_path / "held", "train", ["scaled_up"])
    change_json(tmp_path / "held" / "train.json", lambda content: content["annotations"][0].update(area=33))
    assert script(CONVERT, "held", "--boxes", "scaled_up", "--output_path", "out").code == 0
    assert json.loads((tmp_path / "out" / "train.json").read_text())["annotations"][0]["area"] == 33


def test_what_can_not_be_read_so_is_refused(script, tmp_path, own_folder):
    write_scenes(tmp_path / "data", "train", ["as_given"])
    run = script(CONVERT, "data", "--boxes", "corners", "--output_path", "out")
    assert run.code == 2
    assert "has no width or height when read as corners" in run.err
    assert not (tmp_path / "out").exists()
    run = script(CONVERT, "data", "--boxes", "center", "--output_path", "out")
    assert run.code == 2
    assert "--boxes" in run.err


@pytest.mark.usefixtures("narrow_network")
def test_a_training_warns_once(script, tmp_path, own_folder):
    write_scenes(tmp_path / "data", "train", ["centres"] * NUM_IMAGES)
    write_scenes(tmp_path / "data", "val", GIVEN[:2], seed=1)

    def train(*more):
        flags = ("--workers", 0, "--eval_every", 9, "--batch_size", 8)
        return script("train", "--coco_path", "data", *TINY, *flags, *more)

    run = train("--epochs", 1)
    assert run.code == 0
    (warning,) = [line for line in run.out.splitlines() if "the boxes of" in line]
    assert warning.startswith(
        "Warning: the boxes of data/train.json fit as centres (x and y are the centre of the box)"
    )
    assert "See python -m retinanet.check_data --coco_path data" in warning
    assert run.out.index("Epoch: 0") < run.out.index(warning) < run.out.index("Epoch 0 took")
    assert "the boxes of" not in train("--epochs", 1, "--output_path", "again").out
    for entry in (tmp_path / "cache").rglob("*.npz"):
        entry.unlink()
    assert "the boxes of" not in train("--epochs", 2, "--resume").out

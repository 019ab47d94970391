"""A photograph is seen in one frame by all commands."""

import json
from pathlib import Path

import pytest
import torch
from support.photos import BOX, RED, colour_inside, write_photo, write_photos
from support.scripts import TINY

from retinanet.commands import draw
from retinanet.data.images import read_upright

pytestmark = pytest.mark.usefixtures("narrow_network", "own_folder")
FLAGS = (*TINY, "--workers", 0, "--flip", 0)


@pytest.fixture
def photos(tmp_path):
    for name in ("train", "val", "test"):
        write_photos(tmp_path / "data", name, [1, 3, 6, 8, 2], of_stored=True)
    return tmp_path / "data"


def losses(run):
    return run.out.splitlines()[-1]


def test_a_run_keeps_its_frame_and_test_takes_it(script, photos):
    run = script("train", "--coco_path", photos, "--epochs", 1, *FLAGS, "--exif", "raw")
    assert run.code == 0, run.err
    assert json.loads(Path("output/run.json").read_text())["settings"]["exif"] == "raw"
    run = script("test", "--coco_path", photos, "--device", "cpu", "--workers", 0)
    assert run.code == 0, run.err
    assert "EXIF" not in run.out
    assert json.loads(Path("test_bbox_results.run.json").read_text())["test_settings"]["exif"] == "raw"
    run = script("test", "--coco_path", photos, "--device", "cpu", "--workers", 0, "--exif", "upright")
    assert "2 images with an EXIF orientation" in run.out


def test_results_are_in_the_frame_of_the_file_and_evaluate_without_images(script, photos):
    assert script("train", "--coco_path", photos, "--epochs", 1, *FLAGS).code == 0
    tables = []
    test = ("test", "--coco_path", photos, "--set_name", "val", "--device", "cpu", "--workers", 0, "--threshold", 0)
    for words in (test, ("test", "--coco_path", photos, "--from_results", "val_bbox_results.json")):
        run = script(*words)
        assert run.code == 0, run.err
        tables.append([line for line in run.out.splitlines() if line.strip().startswith("Average")])
    assert tables[0] == tables[1] != []
    sizes = {
        image["id"]: (image["width"], image["height"])
        for image in json.loads((photos / "val.json").read_text())["images"]
    }
    rows = json.loads(Path("val_bbox_results.json").read_text())
    for row in rows:
        left, top, width, height = row["bbox"]
        assert left + width <= sizes[row["image_id"]][0] + 0.01
        assert top + height <= sizes[row["image_id"]][1] + 0.01
    assert script("test_submission", "--coco_path", photos, "--set_name", "val").out.count("good") == 1


def test_a_run_of_an_earlier_version_resumes_as_it_read_pictures(script, photos):
    whole = script("train", "--coco_path", photos, "--epochs", 2, *FLAGS, "--exif", "raw", "--output_path", "whole")
    assert script("train", "--coco_path", photos, "--epochs", 1, *FLAGS, "--exif", "raw").code == 0
    for name in ("exif", "white_level"):
        content = torch.load("output/last.pt", weights_only=True)
        del content["settings"][name]
        torch.save(content, "output/last.pt")
        record = json.loads(Path("output/run.json").read_text())
        del record["settings"][name]
        Path("output/run.json").write_text(json.dumps(record))
    resume = ("train", "--coco_path", photos, "--epochs", 2, *FLAGS, "--resume")
    run = script(*resume, "--exif", "upright")
    assert run.code == 2
    assert "its run has --exif raw, this command has upright" in run.err
    run = script(*resume)
    assert run.code == 0, run.err
    assert losses(run) == losses(whole)


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
def test_convert_writes_upright_boxes(script, photos, kind):
    write_photos(photos, "train", [1, 6, 8], of_stored=True)
    for name in ("val", "test"):
        (photos / f"{name}.json").unlink()
    words = ("--split", 0.67, 0.33) if kind == "coco" else ("--to", kind)
    run = script("retinanet/convert/__main__", photos, *words, "--output_path", "out")
    assert run.code == 0, run.err
    assert "Note: boxes that refer to the stored pixels are turned upright with their pictures, in 2 images" in run.out
    if kind != "coco":
        run = script("retinanet/convert/__main__", "out", "--output_path", "back")
        assert run.code == 0, run.err
    folder = Path("out" if kind == "coco" else "back")
    content = json.loads((folder / "train.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for entry in content["annotations"]:
        pixels = read_upright(folder / "images" / "train" / names[entry["image_id"]])
        assert colour_inside(pixels, entry["bbox"]) == RED
        assert entry["bbox"] == pytest.approx(BOX, abs=0.01)


@pytest.mark.parametrize(("exif", "is_upright"), [("upright", True), ("raw", False)])
def test_convert_takes_boxes_without_a_size_as_told(script, tmp_path, exif, is_upright):
    """Labels of YOLO were drawn on the upright pictures or, which --exif raw says, on the stored pixels."""
    path = write_photos(tmp_path / "set", "train", [1, 3, 6], of_stored=not is_upright)
    (tmp_path / "set" / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    content = json.loads(path.read_text())
    path.unlink()
    (tmp_path / "set" / "labels" / "train").mkdir(parents=True)
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        left, top, width, height = entry["bbox"]
        numbers = (left + width / 2, top + height / 2, width, height)
        shares = [number / image[side] for number, side in zip(numbers, ("width", "height") * 2, strict=True)]
        (tmp_path / "set" / "labels" / "train" / f"{image['id']}.txt").write_text(f"0 {' '.join(map(str, shares))}\n")
    run = script("retinanet/convert/__main__", "set", "--output_path", "out", "--exif", exif)
    assert run.code == 0, run.err
    assert ("2 images with an EXIF orientation" in run.out) == is_upright
    boxes = [entry["bbox"] for entry in json.loads(Path("out/train.json").read_text())["annotations"]]
    assert boxes == [pytest.approx(BOX, abs=0.01)] * 3


def test_vis_draws_upright(script, photos, monkeypatch):
    drawn = []
    draw_grid = draw.draw_grid

    def noting(panels, *more, **how):
        drawn.extend(panels)
        return draw_grid(panels, *more, **how)

    monkeypatch.setattr(draw, "draw_grid", noting)
    run = script("vis", "--coco_path", photos, "--image_id", 3)
    assert run.code == 0, run.err
    (panel,) = drawn
    assert panel.image.shape[:2] == (48, 64)
    assert colour_inside(panel.image, panel.boxes[0].tolist()) == RED


def test_pictures_that_have_changed_end_the_run(script, photos):
    train = ("train", "--coco_path", photos, "--epochs", 1, *FLAGS, "--bad_images", "skip")
    assert script(*train).code == 0
    write_photo(photos / "images" / "train" / "1.png", 3)
    run = script(*train, "--output_path", "again")
    assert run.code == 2
    assert "train/1.png: is 48 x 64" in run.err
    assert "the pictures have changed; start again" in run.err
    assert script(*train, "--output_path", "again").code == 0

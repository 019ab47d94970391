"""python -m retinanet.predict, as a user runs it."""

import csv
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checkpoint_files import random_checkpoint
from support.data_folder import NAMES, write_set

from retinanet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from retinanet.coco.score_thresholds import threshold_below, threshold_text

PREDICT = "retinanet/predict/__main__"
pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return random_checkpoint(tmp_path / "best.pt")


DEVICE = ("--device", "cpu", "--precision", "float32")  # the auto of predict may be bfloat16


def rows_in(folder: Path) -> list[dict]:
    return json.loads((folder / "predictions.json").read_text())


@pytest.mark.parametrize("views", [(), ("--flip_test", "--test_sides", 64, 96)])
def test_it_finds_what_test_finds(script, coco_path, checkpoint, views):
    how = ("--checkpoint_path", checkpoint, "--threshold", 0.05, *DEVICE, *views)
    tested = script("test", "--coco_path", coco_path, "--set_name", "val", "--num_draws", 0, "--workers", 0, *how)
    predicted = script(PREDICT, coco_path / "images" / "val", *how)

    assert (tested.code, predicted.code, predicted.err) == (0, 0, "")
    num_images = len(list((coco_path / "images" / "val").iterdir()))
    assert f"\nFiles: {num_images} read, none left out\n" in predicted.out
    wanted = json.loads(Path("val_bbox_results.json").read_text())
    rows = rows_in(Path("predictions"))
    assert len(rows) == len(wanted) > 20
    for row, want in zip(rows, wanted, strict=True):
        assert Path(row["file_name"]).stem == str(want["image_id"])
        assert row["category_id"] == want["category_id"]
        assert row["class"] == NAMES[row["category_id"] - 1]
        assert row["score"] == pytest.approx(want["score"], abs=1e-5)  # batches differ in size
        assert row["bbox"] == pytest.approx(want["bbox"], abs=1e-3)
    with open("predictions/predictions.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row["left"]) for row in table] == pytest.approx([row["bbox"][0] for row in rows], abs=0.006)
    assert {row["class"] for row in table} <= set(NAMES)


def test_the_default_threshold_keeps_the_detection_that_sets_it(script, coco_path, checkpoint):
    """As a checkpoint holds it, as earlier versions did, and typed as it is printed."""
    how = (PREDICT, coco_path / "images" / "val", "--device", "cpu", "--save", "--checkpoint_path")
    assert script(*how, checkpoint, "--threshold", 0.05).code == 0
    scores = sorted((row["score"] for row in rows_in(Path("predictions"))), reverse=True)
    count = len(scores) // 2
    threshold = threshold_below(scores[count - 1])
    for saved in (threshold, math.nextafter(scores[count - 1], 0)):
        save_checkpoint(load_checkpoint(checkpoint)._replace(score_threshold=saved), Path("trained.pt"))
        run = script(*how, "trained.pt")
        assert f"with a score above {threshold_text(threshold)}\n" in run.out
        assert len(rows_in(Path("predictions"))) == count
    script(*how, checkpoint, "--threshold", threshold_text(threshold))
    assert len(rows_in(Path("predictions"))) == count


def test_a_class_can_have_a_threshold_of_its_own(script, coco_path, checkpoint):
    """A name may contain = signs, and a SOURCE may stand behind the thresholds."""
    checkpoint = random_checkpoint(Path("named.pt"), class_names=["a=0.3", "green"])
    how = (PREDICT, "--checkpoint_path", checkpoint, "--device", "cpu", "--save", "--threshold")
    assert script(*how, 0.05, coco_path / "images" / "val").code == 0
    everything = rows_in(Path("predictions"))
    own = sorted(row["score"] for row in everything if row["class"] == "a=0.3")[20]

    run = script(*how, 0.05, f"a=0.3={own!r}", coco_path / "images" / "val")

    assert f"Detecting a=0.3, green with a score above 0.05, {threshold_text(own)} for a=0.3\n" in run.out
    wanted = [row for row in everything if row["class"] == "green" or row["score"] > own]
    assert rows_in(Path("predictions")) == wanted
    assert {row["class"] for row in wanted} == {"a=0.3", "green"}
    run = script(*how, f"a=0.3={own!r}", "green=0.5", coco_path / "images" / "val")
    assert f"with a score above {threshold_text(own)} for a=0.3, 0.5 for green\n" in run.out


def test_pictures_and_crops(script, coco_path, checkpoint):
    val = coco_path / "images" / "val"

    how = ("--checkpoint_path", checkpoint, "--save", "pictures", "crops", "--device", "cpu")
    run = script(PREDICT, val, *how)

    assert run.code == 0
    pictures = sorted(path.name for path in Path("predictions/pictures").iterdir())
    assert pictures == sorted(path.name for path in val.iterdir())
    for name in pictures:
        assert Image.open(f"predictions/pictures/{name}").size == Image.open(val / name).size
    rows = rows_in(Path("predictions"))
    crops = list(Path("predictions/crops").rglob("*.png"))
    assert len(crops) == len(rows)
    assert f"{len(rows)} detections in 5 images" in run.out


def test_annotations_read_back_as_the_detections(script, coco_path, checkpoint):
    """Images of one name in two folders stay apart, and a file that can't be read is in none of the sets."""
    images, twin = coco_path / "images" / "val", coco_path / "images" / "train" / "1.png"
    (images / "broken.png").write_text("no image")
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--save", "coco", "yolo", "voc")

    run = script(PREDICT, images, twin, *how)

    assert run.code == 1
    assert f"Note: images with another name in coco, yolo, voc: 1, such as {twin} is 1_2.png\n" in run.out
    assert "\nWritten to predictions: predictions.json, predictions.csv, coco/, yolo/, voc/\n" in run.out
    wanted: dict[str, list] = {}
    for row in rows_in(Path("predictions")):
        name = Path(row["file_name"]).name if str(twin) != row["file_name"] else "1_2.png"
        wanted.setdefault(name, []).append((row["class"], row["bbox"], row["score"]))
    scores = json.loads(Path("predictions/yolo/scores.json").read_text())
    for kind, rounding in (("coco", 1e-6), ("yolo", 2e-3), ("voc", 1)):
        assert script("retinanet/convert/__main__", f"predictions/{kind}", "--output_path", f"back_{kind}").code == 0
        content = json.loads(Path(f"back_{kind}/train.json").read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        assert {*names.values()} == {"1.png", "1_2.png", "2.png", "3.png", "4.png", "5.png"}
        rows = content["annotations"]
        assert len(rows) == sum(map(len, wanted.values())) > 20
        for image_id, name in names.items():
            mine = [entry for entry in rows if entry["image_id"] == image_id]
            for entry, (class_name, box, score) in zip(mine, wanted.get(name, []), strict=True):
                assert NAMES[entry["category_id"] - 1] == class_name
                corners, again = ([x, y, x + w, y + h] for x, y, w, h in (box, entry["bbox"]))
                assert again == pytest.approx(corners, abs=rounding)
                assert kind != "coco" or entry["score"] == score
            path = f"labels/train/{Path(name).with_suffix('.txt')}"
            assert scores[path] == [score for *_, score in wanted.get(name, [])]


def test_annotations_of_an_earlier_run_are_moved_with_their_links_and_sources_stay(script, coco_path, checkpoint):
    images = coco_path / "images" / "val"
    how = (PREDICT, images, "--checkpoint_path", checkpoint, "--device", "cpu", "--save", "coco")
    assert script(*how).code == 0
    image = Path("predictions/coco/images/train/1.png")
    assert image.is_symlink()
    (images / "5.png").unlink()  # now a link leads nowhere
    script(PREDICT, image, "--checkpoint_path", checkpoint)
    assert image.is_symlink()  # a link of an earlier run is no SOURCE

    run = script(*how, "--images", "copy")

    assert run.code == 0, run.err
    assert "predictions holds an earlier run: 8 files moved to predictions/before_1" in run.out
    assert len(list(Path("predictions/before_1/coco/images/train").iterdir())) == 5
    assert sorted(path.name for path in Path("predictions/coco/images/train").iterdir()) == [
        *("1.png", "2.png", "3.png", "4.png")
    ]
    assert not image.is_symlink()
    mine = Path("predictions/coco/mine.txt")
    mine.write_text("mine")
    run = script(*how, "--images", "none")
    assert "predictions.csv, coco_2/\n" in run.out
    assert [path.name for path in Path("predictions/coco_2").iterdir()] == ["train.json"]
    assert mine.read_text() == "mine"


def test_annotations_are_for_images(script, coco_path, checkpoint):
    from support.videos import write_video  # skips where PyAV is missing

    write_video(Path("clip.avi"), 3)
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--save", "coco", "voc")
    run = script(PREDICT, "clip.avi", *how)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "clip.avi: --save coco voc is for images. Leave it out for videos" in run.err
    run = script(PREDICT, "clip.avi", coco_path / "images" / "val" / "1.png", *how)
    assert run.code == 0, run.err
    assert "Note: coco, voc without 1 video: only images are annotated\n" in run.out
    assert len(json.loads(Path("predictions/coco/train.json").read_text())["images"]) == 1


def test_one_of_each_is_singular(script, tmp_path, checkpoint):
    """Convert and predict with one image, one class and one object."""
    content = write_set(tmp_path / "data", "train", 2)
    one = {name: rows[:1] for name, rows in content.items()}
    one["annotations"][0]["category_id"] = one["categories"][0]["id"]
    (tmp_path / "data" / "train.json").write_text(json.dumps(one))
    converted = script("retinanet/convert/__main__", tmp_path / "data", "--to", "yolo", "--output_path", "yolo")
    image = next((tmp_path / "data" / "images" / "train").iterdir())
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--classes", NAMES[0], "--max_detections", 1)
    predicted = script(PREDICT, image, *how, "--threshold", 0)

    assert (converted.code, predicted.code) == (0, 0), converted.err + predicted.err
    assert "train: 1 image, 1 object\n" in converted.out
    assert "1 detection in 1 image: " in predicted.out
    assert not re.search(r"\b1 [a-z]+s\b(?<!class)", converted.out + predicted.out)


def test_unreadable_files_are_named_counted_and_skipped(script, coco_path, checkpoint):
    val = coco_path / "images" / "val"
    (val / "0.jpg").write_text("no image")
    (val / "3.png").write_bytes((val / "3.png").read_bytes()[:200])

    run = script(PREDICT, val, "--checkpoint_path", checkpoint, "--save", "--device", "cpu")

    assert run.code == 1
    assert "0.jpg: can't be read as an image" in run.err
    assert "3.png: can't be read as an image" in run.err
    assert "2 of 6 files could not be read" in run.out
    assert {Path(row["file_name"]).name for row in rows_in(Path("predictions"))} <= {"1.png", "2.png", "4.png", "5.png"}
    assert not Path("predictions/pictures").exists()


def test_no_detections_are_an_empty_list(script, coco_path, checkpoint):
    how = ("--checkpoint_path", checkpoint, "--threshold", 1, "--device", "cpu")

    assert script(PREDICT, coco_path / "images" / "val" / "1.png", *how).code == 0

    assert rows_in(Path("predictions")) == []
    assert Path("predictions/predictions.csv").read_text().count("\n") == 1


def test_files_of_one_name_do_not_overwrite_each_other(script, coco_path, checkpoint):
    images = coco_path / "images"

    run = script(PREDICT, images / "val", images / "train", "--checkpoint_path", checkpoint, "--device", "cpu")

    assert run.code == 0
    assert len(list(Path("predictions/pictures").iterdir())) == 13


def test_a_video(script, checkpoint):
    from support.videos import facts, write_video  # skips where PyAV is missing

    write_video(Path("clip.avi"), 12)
    how = ("--checkpoint_path", checkpoint, "--save", "pictures", "crops", "--device", "cpu", "--threshold", 0.05)

    run = script(PREDICT, "clip.avi", *how)

    assert (run.code, run.err) == (0, "")
    assert facts(Path("predictions/pictures/clip.mp4"))[:4] == facts(Path("clip.avi"))[:4]
    rows = rows_in(Path("predictions"))
    assert {row["frame"] for row in rows} == set(range(12))
    assert len(list(Path("predictions/crops").rglob("*.jpg"))) == len(rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--overlap", 0.5), "--overlap only applies with --tile"),
        (("--tile", 64, "--overlap", 0.95), "expected a number from 0 to 0.9"),
        (("--classes", "horse"), "has no class 'horse'"),
        (("--test_sides", 64, 64), "--test_sides: 64 is listed twice. List each side once"),
        (("--threshold", 2), "--threshold: expected a number from 0 to 1, or CLASS=NUMBER; got '2'"),
        (("--threshold", "red=1.5"), "expected a number from 0 to 1, or CLASS=NUMBER; got 'red=1.5'"),
        (("--threshold", 0.3, "red=x"), "red=x: no such file"),
        (("--threshold", 0.3, "blue=0.5"), "has no class 'blue'. Its classes are red, green"),
        (("--threshold", "red=0.5", "red=0.4"), "--threshold: 0.5 and 0.4 are both for the class 'red'"),
        (("--threshold", 0.3, 0.5), "--threshold: 0.3 and 0.5 are both for the other classes"),
        (("--checkpoint_path", "nowhere.pt"), "nowhere.pt: no such file"),
        (("--output_path", "best.pt"), "best.pt"),
        (("--save", "boxes"), "--save"),
        (("--images", "copy"), "--images only applies with --save coco, yolo, voc"),
        (("--conf", 0.5), "did you mean --threshold?"),
    ],
)
def test_mistakes_end_in_one_message(script, coco_path, checkpoint, flags, message):
    image = coco_path / "images" / "val" / "1.png"

    run = script(PREDICT, image, "--checkpoint_path", checkpoint, "--device", "cpu", *flags)

    assert run.code == 2
    assert message in run.err
    assert run.err.count("\n") == 1
    assert not Path("predictions").exists()


def test_a_name_that_a_format_can_not_hold_is_refused_before_detecting(script, coco_path, checkpoint):
    image = coco_path / "images" / "val" / "a\nb.png"
    (coco_path / "images" / "val" / "1.png").rename(image)
    run = script(PREDICT, image, "--checkpoint_path", checkpoint, "--device", "cpu", "--save", "coco", "voc")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "the PASCAL VOC format can't hold. Rename it or leave the format out of --save." in run.err
    assert not Path("predictions").exists()


def test_a_name_that_is_not_utf8_is_refused_only_by_formats_with_names(script, coco_path, checkpoint):
    image = coco_path / "images" / "val" / os.fsdecode(b"caf\xe9.png")
    (coco_path / "images" / "val" / "1.png").rename(image)
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--threshold", 0, "--save", "yolo")
    run = script(PREDICT, image, *how, "coco", "voc")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert r"caf\udce9.png' isn't UTF-8, which the COCO format needs. Rename it or leave the format" in run.err
    assert not Path("predictions").exists()
    assert script(PREDICT, image, *how).code == 0
    assert {row["file_name"] for row in rows_in(Path("predictions"))} == {str(image)}
    assert len(list(Path("predictions/yolo/labels").rglob("*.txt"))) == 1


def test_tiles_work_with_a_real_network(script, checkpoint):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 260, 3), dtype=np.uint8)).save("large.png")
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--threshold", 0.05, "--max_detections", 999, "--save")

    counts = []
    for flags in ((), ("--tile", 96)):
        assert script(PREDICT, "large.png", *how, *flags).code == 0
        rows = rows_in(Path("predictions"))
        counts.append(len(rows))
        for row in rows:
            left, top, width, height = row["bbox"]
            assert left >= 0
            assert top >= 0
            assert left + width <= 260.01
            assert top + height <= 200.01
    assert counts[1] > counts[0]

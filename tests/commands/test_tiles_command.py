"""Training on tiles, and what then happens to the checkpoint, as a user runs it."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.accidents import before_each_batch
from support.checkpoint_files import random_checkpoint
from support.data_folder import large_set
from support.rank_runs import environment, write_script
from support.scripts import TINY
from support.warm import started_ranks

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.dataset import load_set
from retinanet.data.image_cache import ImageCache
from retinanet.detector.settings import DEFAULT_DETECTION
from retinanet.export.onnx_file import metadata_of
from retinanet.predict.detector import Detector
from retinanet.settings.shared import Augmentation, Tiles

pytestmark = pytest.mark.usefixtures("narrow_network")

PREDICT, CHECK = "retinanet/predict/__main__", "retinanet/check_data/__main__"
FLAGS = (*TINY, "--batch_size", 2, "--learning_rate", 0.001, "--log_every", 1, "--workers", 0)
TILES = ("--tile", 64, "--overlap", 0.25)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return large_set(tmp_path_factory.mktemp("tiles") / "data", "train", "val")


def evaluated(script, data, checkpoint, *flags):
    how = ("--coco_path", data, "--checkpoint_path", checkpoint, "--set_name", "val", "--device", "cpu", "--workers", 0)
    run = script("test", *how, "--num_draws", 0, *flags)
    assert run.code == 0, run.err
    return run.out, json.loads(Path("val_bbox_results.json").read_text())


def test_a_run_and_its_checkpoint(script, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = script("train", "--coco_path", data, "--epochs", 2, *FLAGS, *TILES)
    assert run.code == 0, run.err
    shown = re.search(
        r"Tiles: side 64, overlap 0.25: the first epoch shows (\d+) images: 4 whole, (\d+) tiles with objects "
        r"to learn, and (\d+) of (\d+) tiles without",
        run.out,
    )
    num_shown, num_full, num_empty, num_all_empty = map(int, shown.groups())
    assert num_shown == 4 + num_full + num_empty
    assert num_empty == -(-num_all_empty // 4)
    steps = [len(re.findall(rf"Epoch: {epoch} \|", run.out)) for epoch in (0, 1)]
    assert steps[0] == -(-num_shown // 2)
    rates = re.findall(r"Time left: (\S+)", run.out)
    assert rates[-1] == "0:00:00"

    # What was evaluated on the way is what test.py finds now, by default and with the same flags.
    tables = [line for line in run.out.splitlines() if line.startswith(" Average")]
    low = ("--threshold", 0.001)
    out, _ = evaluated(script, data, "output/model_final.pt")
    assert [line for line in out.splitlines() if line.startswith(" Average")] == tables
    assert "Tiles: side 64, overlap 0.25, and each image as a whole" in out
    by_default, with_flags, other, none = (
        evaluated(script, data, "output/model_final.pt", *low, *flags)[1]
        for flags in ((), TILES, ("--tile", 96), ("--tile", 0))
    )
    assert by_default == with_flags
    assert by_default != other != none != by_default
    record = json.loads(Path("val_bbox_results.run.json").read_text())
    assert (record["test_settings"]["tile"], record["test_settings"]["overlap"]) == (None, None)

    how = ("--checkpoint_path", "output/model_final.pt", "--precision", "float32", *low)
    run = script(PREDICT, data / "images" / "val", "--save", *how)
    assert run.code == 0, run.err
    rows = json.loads(Path("predictions/predictions.json").read_text())
    assert len(rows) == len(by_default) > 0
    for row, want in zip(rows, by_default, strict=True):
        assert (Path(row["file_name"]).stem, row["category_id"]) == (str(want["image_id"]), want["category_id"])
        assert row["bbox"] == pytest.approx(want["bbox"], abs=1e-3)

    checkpoint = load_checkpoint(Path("output/model_final.pt"))
    assert checkpoint.tiles == Tiles(64, 0.25)
    facts = metadata_of(checkpoint, DEFAULT_DETECTION)
    assert (facts["tile"], facts["overlap"]) == (64, 0.25)
    assert Detector("output/model_final.pt").looks.views.tiles == Tiles(64, 0.25)
    assert Detector("output/model_final.pt", tile=0).looks.views.tiles is None
    assert Detector("output/model_final.pt", tile=128).looks.views.tiles == Tiles(128, 0.25)


def test_a_checkpoint_without_tiles(script, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = random_checkpoint(tmp_path / "best.pt")
    plain, off, tiled = (
        evaluated(script, data, checkpoint, *flags)[1] for flags in ((), ("--tile", 0), ("--tile", 64))
    )
    assert plain == off != tiled
    assert Detector(checkpoint).looks.views.tiles is None
    assert Detector(checkpoint, tile=64).looks.views.tiles == Tiles(64, 0.2)


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        ("train", ("--tile", 63), "expected a whole number, 64 or more"),
        ("train", ("--overlap", 0.3), "--overlap only applies with --tile"),
        ("train", ("--min_visible", 0.3), "--min_visible only applies with --tile"),
        ("train", ("--tile", 64, "--overlap", 0.95), "--overlap"),
        ("test", ("--tile", 30), "--tile"),
        ("test", ("--tile", 0, "--overlap", 0.3), "--overlap has no effect with --tile 0"),
        ("test", ("--set_name", "val", "--overlap", 0.3), "--overlap only applies with --tile"),
        ("test", ("--compare", "a.json", "b.json", "--tile", 64), "--tile only applies to detection"),
        (PREDICT, ("a.png", "--overlap", 0.3), "--overlap only applies with --tile"),
        (CHECK, ("--min_visible", 0.3), "--min_visible only applies with --tile"),
    ],
)
def test_contradictions(script, data, tmp_path, monkeypatch, program, flags, message):
    monkeypatch.chdir(tmp_path)
    checkpoint = random_checkpoint(tmp_path / "best.pt")
    Image.new("RGB", (9, 9)).save("a.png")
    files = () if program in ("train", CHECK) or "--compare" in flags else ("--checkpoint_path", checkpoint)
    run = script(program, *flags, *(() if program == PREDICT else ("--coco_path", data)), *files)
    assert (run.code, message in run.err) == (2, True), run.err


@pytest.mark.parametrize("more", [(), ("--repeat_threshold", 0.9, "--augment", "crop", "--cache", "ram")], ids=str)
def test_verify_resume(script, data, tmp_path, more):
    run = script("train", "--coco_path", data, *FLAGS, *TILES, "--verify_resume", 3, *more)
    assert run.code == 0, run.out + run.err
    assert "Equal to the last bit after 6 steps" in run.out


def test_a_run_stopped_in_its_second_epoch_resumes_to_the_same_weights(script, data, tmp_path):
    flags = ("--coco_path", data, *FLAGS, *TILES, "--epochs", 2, "--eval_every", 9)
    whole = script("train", *flags, "--output_path", tmp_path / "whole")
    assert whole.code == 0
    num_first = len(re.findall(r"Epoch: 0 \|", whole.out))

    def stop(batch):
        if batch == num_first + 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with before_each_batch(stop):
        assert script("train", *flags, "--output_path", tmp_path / "halved", "--workers", 2).code == 143
    again = script("train", *flags, "--output_path", tmp_path / "halved", "--resume", "--workers", 1)
    assert again.code == 0, again.err
    assert "after 1 epochs and" in again.out
    assert_equal_weights(tmp_path / "whole", tmp_path / "halved")


def assert_equal_weights(first, second):
    weights, others = (torch.load(folder / "model_final.pt")["model"] for folder in (first, second))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_two_ranks_resume_to_the_same_weights(data, tmp_path):
    """A copy of a run's state in its first epoch is continued by two other ranks."""
    keep = f"""
import shutil
def keep(batch):
    if batch == 4 and os.environ["RANK"] == "0":
        os.makedirs({str(tmp_path / "again")!r}, exist_ok=True)
        shutil.copy({str(tmp_path / "whole" / "last.pt")!r}, {str(tmp_path / "again" / "last.pt")!r})
before_each_batch(keep)
"""
    scripts = {"whole": write_script(tmp_path, "keeping.py", keep), "again": write_script(tmp_path, "train.py")}
    for output, more in (("whole", ("--save_every", 2)), ("again", ("--resume",))):
        flags = ("--coco_path", data, *FLAGS, *TILES, "--eval_every", 9, "--epochs", 1, *more)
        words = [str(word) for word in (tmp_path / scripts[output], *flags, "--output_path", tmp_path / output)]
        ranks = started_ranks(2, words, environment())
        ends = [rank.communicate(timeout=120) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], ends
    assert "after 0 epochs and 2 iterations" in ends[0][0]
    assert_equal_weights(tmp_path / "whole", tmp_path / "again")


@pytest.mark.parametrize("names", [None, ("crop", "photometric"), ("jitter",)])
def test_workers_and_the_cache_change_nothing(data, names):
    def batches(workers, budget):
        _, dataset = load_set(
            data, "train", min_side=64, max_side=96, max_pixels=10**6, keep_crowds=True, min_visible=0.5
        )
        if budget is not None:
            dataset.cache = ImageCache(dataset.annotations.sizes, budget)
        loader, sampler = training_loader(
            dataset, LoaderSettings(3, workers), seed=5, augmentation=Augmentation(augment=names), tiles=Tiles(64, 0.2)
        )
        sampler.start_at(1)
        return [batch for batch, _ in loader]

    _, dataset = load_set(data, "train", min_side=64, max_side=96, max_pixels=10**6, min_visible=0.5)
    whole = dataset.read(1).image
    dataset.cache = ImageCache(dataset.annotations.sizes, 10**9)
    for _ in range(2):
        assert torch.equal(dataset.read(1).image, whole)

    plain, others = batches(0, None), [*map(batches, (2, 0, 0), (None, 10**9, 200_000))]
    assert any((batch.targets.labels == -2).any() for batch in plain)  # objects that are hardly seen
    for other in others:
        assert len(other) == len(plain)
        for batch, same in zip(plain, other, strict=True):
            assert torch.equal(batch.images, same.images)
            assert torch.equal(batch.targets.boxes, same.targets.boxes)


def test_a_tile_has_the_pixels_of_its_image(data):
    _, dataset = load_set(data, "train", min_side=64, max_side=64, max_pixels=10**6, min_visible=0.5)
    loader, _ = training_loader(
        dataset, LoaderSettings(1), seed=5, augmentation=Augmentation(flip=0), tiles=Tiles(64, 0.2)
    )
    sampled = 0
    for draw, (batch, _) in zip(loader.sampler, loader, strict=True):
        (window,) = draw.windows
        if (window.height, window.width) == (64, 64):
            part = dataset.original(window.row)[window.top :, window.left :][:64, :64]
            assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), part)
            sampled += 1
    assert sampled > 20


def test_check_data_recommends_a_side(script, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = script(CHECK, "--coco_path", data, "--min_side", 64, "--max_side", 96, "--tile", 64, "--no_pixels")
    assert "Tiles: side 64, overlap 0.2: the first epoch shows " in run.out
    table = run.out.partition("pixels per epoch")[2]
    shares = {side: float(share) for side, share in re.findall(r"(no tiles|--tile \d+) +(\S+)%", table)}
    assert shares["no tiles"] < shares["--tile 64"]
    assert re.search(r"Recommended: --tile \d+, the cheapest", run.out)
    assert "--tile 64 --overlap 0.2: " in run.out

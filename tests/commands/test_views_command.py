"""test.py runs test-time augmentation as a user requests it."""

import json

import pytest
import torch
from support.built import small_network
from support.data_folder import NAMES

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.evaluation import detect_set

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory):
    torch.manual_seed(0)  # with some random outputs, all views give the same boxes
    model = small_network(random_outputs=True)
    checkpoint = Checkpoint(
        model=model.state_dict(),
        architecture=model.architecture,
        class_names=list(NAMES),
        category_ids=[1, 2],
        min_side=64,
        max_side=96,
        batch_size=2,
        epoch=1,
        settings={},
    )
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    save_checkpoint(checkpoint, path)
    return path


def test_as_a_user_runs_it(script, coco_path, checkpoint_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = ("--coco_path", coco_path, "--checkpoint_path", checkpoint_path, "--set_name", "val", "--device", "cpu")
    how = (*how, "--workers", 0, "--num_draws", 0)
    results = tmp_path / "val_bbox_results.json"
    found = {}
    for name, flags in {
        "plain": (),
        "same": ("--test_sides", 64),
        "sides": ("--test_sides", 64, 96),
        "all": ("--flip_test", "--test_sides", 64, 96, "--max_side", 80),
    }.items():
        run = script("test", *how, *flags)
        assert (run.code, run.err) == (0, "")
        found[name] = results.read_text()
        assert ("Views: " in run.out) == (name != "plain")
        assert f"{len(json.loads(found[name]))} detections written" in run.out
    assert "Views: sides 64, 96, each mirrored too: 4 views of each image" in run.out.splitlines()
    assert found["plain"] == found["same"]
    assert len({found["plain"], found["sides"], found["all"]}) == 3
    assert script("test_submission", "--coco_path", coco_path, "--set_name", "val").code == 0


def test_the_longer_side_grows_with_the_shorter(script, coco_path, checkpoint_path, tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detect_set, "evaluation_loader", lambda *_, **how: seen.append(how["test_sides"]) or [])
    how = ("--coco_path", coco_path, "--checkpoint_path", checkpoint_path, "--device", "cpu")
    for flags in ((), ("--test_sides", 97, 64), ("--test_sides", 97, "--max_side", 70)):
        assert script("test", *how, *flags).code == 0
    assert seen == [None, [(97, 146), (64, 96)], [(97, 106)]]  # 97 * 96 / 64 = 145.5, 97 * 70 / 64 = 106.1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--test_sides", 64, 96, "--min_side", 64), "--test_sides and --min_side both set"),
        (("--test_sides", 96, 64, 96), "--test_sides: 96 is listed twice"),
        (("--test_sides", 32), "expected a whole number, 64 or more; got '32'"),
        (("--test_sides",), "expected at least one argument"),
        (("--compare", "a.json", "b.json", "--flip_test"), "--flip_test only applies to detection"),
        (("--compare", "a.json", "b.json", "--test_sides", 64), "--test_sides only applies to detection"),
    ],
)
def test_contradictions(script, coco_path, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    run = script("test", "--coco_path", coco_path, *flags)
    assert (run.code, run.out) == (2, "")
    assert words in run.err
    assert not list(tmp_path.glob("*.json"))

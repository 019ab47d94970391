"""The flags of the loss, from the command line to a trained epoch."""

import pytest
from support.data_folder import change_json
from support.scripts import TINY

from retinanet.detector.structures import CROWD
from retinanet.runtime.ranks import ALONE
from retinanet.settings.train import train_settings
from retinanet.training.sets import load_sets

pytestmark = pytest.mark.usefixtures("narrow_network")

SHORT = (*TINY, "--epochs", 1, "--batch_size", 4, "--workers", 0)


def with_crowds(coco_path):
    for name in ("train", "val"):
        change_json(coco_path / f"{name}.json", lambda content: content["annotations"][0].update(iscrowd=1))


@pytest.mark.parametrize(("matcher", "box_loss"), [("low_quality", "smooth_l1"), ("atss", "giou")])
def test_an_epoch(script, coco_path, tmp_path, matcher, box_loss):
    with_crowds(coco_path)
    flags = ("--matcher", matcher, "--box_loss", box_loss, "--ignore_crowds")
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "output", *SHORT, *flags)
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert "Not trained on: 1 crowd, 0 boxes without area" in lines
    assert "Objects to learn: 6 of 2 classes; 0 clipped at the image border" in lines
    assert float(lines[-1].strip("[]")) > 0


@pytest.mark.parametrize("ignore", [False, True])
def test_only_the_training_set_keeps_crowds_and_only_where_asked_for(coco_path, ignore):
    with_crowds(coco_path)
    flags = ["--coco_path", coco_path, *SHORT, *["--ignore_crowds"] * ignore]
    data = load_sets(train_settings(list(map(str, flags))), ALONE)
    assert data.training_set.read(0).labels.tolist() == [CROWD] * ignore
    assert data.val_set.read(0).labels.tolist() == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--matcher", "atss", "--foreground_iou", 0.6), "Remove --foreground_iou"),
        (("--matcher", "atss", "--background_iou", 0.3), "Remove --background_iou"),
        (("--box_loss", "giou", "--beta", 0.5), "--beta only applies to --box_loss smooth_l1"),
    ],
)
def test_contradictions(script, coco_path, tmp_path, flags, message):
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "output", *SHORT, *flags)
    assert (run.code, message in run.err) == (2, True)
    assert not (tmp_path / "output").exists()

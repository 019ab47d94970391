"""Anchors set by flags are trained, stored in the checkpoint, tested, and recommended ready to paste."""

import shlex

import pytest
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.data.anchor_coverage import AnchorSetup
from retinanet.data.anchor_remedies import alternatives
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.errors import UserError
from retinanet.settings.check_data import check_data_settings
from retinanet.settings.train import train_settings

OTHER = ("--anchor_scale", 2.5, "--anchor_ratios", 0.4, 1, "--anchor_octaves", 2)
SHAPES = AnchorShapes(2.5, (0.4, 1.0), (1.0, 2**0.5))


@pytest.mark.usefixtures("narrow_network")
def test_a_training_and_its_test_have_the_anchors_of_the_flags(script, coco_path, tmp_path):
    flags = ("--coco_path", coco_path, "--output_path", tmp_path, *TINY, "--epochs", 1, "--workers", 0)
    done = script("train", *flags, *OTHER)
    assert done.code == 0, done.err
    kept = load_checkpoint(tmp_path / "model_final.pt")
    assert kept.architecture.anchors == SHAPES
    assert kept.model["regression_head.output.bias"].shape == (4 * 4,)
    test = ("--coco_path", coco_path, "--set_name", "val", "--checkpoint_path", tmp_path / "model_final.pt")
    assert script("test", *test, "--device", "cpu", "--workers", 0).code == 0
    refused = script("train", *flags, *OTHER, "--anchor_scale", 3, "--resume")
    assert refused.code == 2
    assert "its run has --anchor_scale 2.5, this command has 3, which changes the numbers" in refused.err


def test_the_defaults_are_the_papers():
    assert train_settings([]).network.anchors.shapes == check_data_settings([]).anchors.shapes == AnchorShapes()


@pytest.mark.parametrize("settings", [train_settings, check_data_settings])
def test_a_ratio_given_twice_is_refused(settings):
    with pytest.raises(UserError, match="--anchor_ratios: a ratio is listed twice"):
        settings(["--anchor_ratios", "1", "2", "1.0"])


def test_what_check_data_recommends_can_be_pasted():
    for flags, setup in alternatives(AnchorSetup(608, 1024)).items():
        settings = train_settings(shlex.split(flags))
        assert AnchorSetup(settings.data.min_side, settings.data.max_side, settings.network.anchors.shapes) == setup

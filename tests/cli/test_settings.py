"""From command lines to settings, without PyTorch, and to the form that logs and checkpoints hold."""

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from support.scripts import ROOT

from retinanet.cli import submission_flags, test_flags, train_flags, vis_flags
from retinanet.cli.submission_flags import SubmissionSettings
from retinanet.cli.test_flags import EvaluationSettings
from retinanet.cli.train_flags import train_settings
from retinanet.cli.vis_flags import PictureSettings
from retinanet.training.settings import TrainSettings

SCRIPTS = ("train", "test", "vis", "test_submission")
# What `Settings:` lines, run.json and checkpoints of all versions hold, in this order.
NAMES = """
recipe coco_path train_set val_set min_side max_side train_sides flip augment repeat_threshold batch_size drop_last
bad_images depth channels weights freeze_stages head_norm norm_statistics prior iou_branch anchor_scale anchor_ratios
anchor_octaves alpha gamma beta foreground_iou background_iou matcher class_loss box_loss ignore_crowds epochs optimizer
learning_rate backbone_rate weight_decay schedule milestones warmup_steps warmup_share accumulate ema_decay ema_share
clip_norm find_lr steps seed seeds compile cache output_path resume save_every eval_every patience log_every log_dir
track threshold num_candidates nms_iou max_detections eval_backend max_skipped timeout deterministic verify_resume
device precision workers max_pixels
"""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--no_such_flag", 2)])
def test_flags_are_read_without_pytorch(script, flag, code):
    program = (
        f"import runpy, sys\nsys.argv = ['{script}.py', '{flag}']\n"
        f"try:\n    runpy.run_path('{script}.py', run_name='__main__')\n"
        "finally:\n    print('torch' in sys.modules, 'matplotlib' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == code
    assert run.stdout.splitlines()[-1] == "False False"
    assert code == 0 or run.stderr.splitlines() == [
        f"{script}.py: error: unrecognized arguments: --no_such_flag (--help lists the flags)"
    ]


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (train_flags, TrainSettings),
        (test_flags, EvaluationSettings),
        (vis_flags, PictureSettings),
        (submission_flags, SubmissionSettings),
    ],
)
def test_each_flag_is_a_field_with_its_default_and_has_a_text(module, settings):
    flags = {
        action.dest: action for action in module.build_parser()._actions if action.option_strings != ["-h", "--help"]
    }
    assert set(flags) == {field.name for field in fields(settings)}
    for field in fields(settings):
        assert flags[field.name].help, field.name
        if field.name not in ("head_norm", "norm_statistics"):  # whose defaults depend on --weights
            assert flags[field.name].default == field.default, field.name


def test_the_plain_form_is_that_of_all_versions():
    settings = train_settings(
        ["--train_sides", "64", "96", "--milestones", "--log_dir", "log", "--eval_backend", "auto"]
    )
    plain = settings.plain()
    assert " ".join(plain) == " ".join(NAMES.split())
    assert plain["train_sides"] == [64, 96]
    assert plain["augment"] is plain["seeds"] is None
    assert (plain["milestones"], plain["backbone_rate"], plain["log_dir"]) == ([], [1.0], "log")
    assert json.loads(json.dumps(plain)) == plain


def test_parts_are_made_of_the_flags():
    settings = train_settings(
        ["--alpha", "0.5", "--nms_iou", "0.6", "--augment", "crop", "--flip", "0", "--depth", "18"]
    )
    assert (settings.loss.alpha, settings.loss.gamma) == (0.5, 2)
    assert settings.detection.nms_iou == 0.6
    assert (settings.augmentation.names, settings.augmentation.flip) == (("crop",), 0)
    assert (settings.start.depth, settings.start.head_norm) == (18, "none")
    with pytest.raises(FrozenInstanceError):
        settings.depth = 34


def test_a_flag_keeps_its_type():
    settings = train_settings(["--coco_path", "a b", "--seed", "random"])
    assert settings.coco_path == Path("a b")
    assert settings.seed == "random"

"""Command lines become settings without importing PyTorch, and settings become plain data for logs and checkpoints."""

import json
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from support.scripts import ROOT

import retinanet
from retinanet.detector.settings import DEFAULT_DETECTION, DEFAULT_LOSS, AnchorShapes, Architecture
from retinanet.settings.check_data import CheckDataSettings
from retinanet.settings.check_labels import CheckLabelsSettings
from retinanet.settings.convert import ConvertSettings
from retinanet.settings.draw import DrawSettings
from retinanet.settings.evaluate import EvaluateSettings
from retinanet.settings.export import ExportSettings
from retinanet.settings.options import flat, options_of, parsed, with_values
from retinanet.settings.predict import PredictSettings
from retinanet.settings.sample_data import SampleDataSettings
from retinanet.settings.submission import SubmissionSettings
from retinanet.settings.train import MAY_CHANGE, TrainSettings, differences, network_values, train_settings

SCRIPTS = ("train", "test", "vis", "test_submission")
COMMANDS = (
    *(TrainSettings, EvaluateSettings, DrawSettings, SubmissionSettings, PredictSettings, ExportSettings),
    *(ConvertSettings, CheckDataSettings, CheckLabelsSettings, SampleDataSettings),
)
# What `Settings:` lines, run.json and checkpoints of all versions hold.
NAMES = """
recipe from_run coco_path train_set val_set min_side max_side exif white_level train_sides flip augment tile
overlap min_visible batch_size repeat_threshold
drop_last bad_images depth channels weights freeze_stages head_norm norm_statistics prior iou_branch anchor_scale
anchor_ratios anchor_octaves alpha gamma beta foreground_iou background_iou matcher class_loss box_loss ignore_crowds
epochs optimizer learning_rate backbone_rate weight_decay schedule milestones warmup_steps warmup_share accumulate
ema_decay ema_share clip_norm find_lr steps seed seeds compile cache output_path resume save_every eval_every keep
patience log_every log_dir log_time track threshold num_candidates nms_iou max_detections eval_backend max_skipped
timeout deterministic verify_resume device precision workers max_pixels
"""


@pytest.mark.parametrize("settings", COMMANDS)
def test_every_flag_is_in_the_docs(settings):
    files = [ROOT / "docs" / "flags.md"] if settings is TrainSettings else [*ROOT.glob("docs/*.md")]
    words = set(re.findall(r"--\w+", " ".join(file.read_text() for file in files)))
    flags = {f"--{details.flag or name}" for name, details in options_of(settings).items() if not details.positional}
    assert flags - words == set()


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


@pytest.mark.parametrize("command", [f"{script}.py" for script in SCRIPTS])
def test_every_command_says_its_version(command):
    run = subprocess.run([sys.executable, command, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"retinanet {retinanet.__version__}\n")


def a_word_for(how):
    """A word of the command line that the option takes, and its value."""
    if not callable(how.kind):
        return str(how.kind[-1]), how.kind[-1]
    for word in ("300", "5", "0.5", "auto", "x"):
        try:
            return word, how.kind(word)
        except Exception:  # not a word of this kind
            continue
    raise AssertionError(how)


@pytest.mark.parametrize("settings", COMMANDS)
def test_every_flag_parses_and_has_a_text(settings):
    operands = [word for how in options_of(settings).values() if how.positional for word in ["x"]]
    for name, how in options_of(settings).items():
        assert how.text, name
        if how.positional:
            continue
        flag = f"--{how.flag or name}"
        if how.kind is bool:
            words, value = [flag], True
        else:
            word, value = a_word_for(how)
            count = how.nargs if isinstance(how.nargs, int) else 1
            words = [flag, *[word] * count]
            value = (value,) * count if how.nargs else value
        got, given = parsed(settings, None, [*operands, *words])
        assert json.dumps(flat(got)[name]) == json.dumps(value, default=str), name
        assert name in given.names


def test_the_flat_form_is_that_of_all_versions():
    settings = train_settings(
        ["--train_sides", "64", "96", "--milestones", "--log_dir", "log", "--eval_backend", "auto"]
    )
    values = flat(settings)
    assert " ".join(values) == " ".join(NAMES.split())
    assert values["train_sides"] == [64, 96]
    assert values["augment"] is values["seeds"] is None
    assert (values["milestones"], values["backbone_rate"], values["log_dir"]) == ([], [1.0], "log")
    assert json.loads(json.dumps(values)) == values


def test_what_a_resumed_run_may_have_otherwise():
    numbers = {"learning_rate", "seed", "min_side", "loss", "matcher", "deterministic", "threshold", "prior"}
    assert not MAY_CHANGE & numbers
    assert {"workers", "device", "coco_path", "epochs", "batch_size", "log_every"} <= MAY_CHANGE


def test_parts_are_made_of_the_flags():
    settings = train_settings(
        ["--alpha", "0.5", "--nms_iou", "0.6", "--augment", "crop", "--flip", "0", "--depth", "18"]
    )
    assert (settings.loss.alpha, settings.loss.gamma) == (0.5, 2)
    assert settings.detection.nms_iou == 0.6
    assert (settings.data.augmentation.augment, settings.data.augmentation.flip) == (("crop",), 0)
    assert (settings.network.depth, settings.network.head_norm) == (18, "none")
    with pytest.raises(FrozenInstanceError):
        settings.network.depth = 34


OTHER_PARTS = {
    "depth": (34, ("--depth", "34")),
    "channels": (64, ("--channels", "64")),
    "head_norm": ("group", ("--head_norm", "group")),
    "anchors": (
        AnchorShapes(2.0, (1.0,), (1.0, 2**0.5)),
        ("--anchor_scale", "2", "--anchor_ratios", "1", "--anchor_octaves", "2"),
    ),
    "iou_branch": (True, ("--iou_branch",)),
}


OF_THE_FILE = ("level_code", "p6_from_p5")  # the weights' file decides


@pytest.mark.parametrize("part", [name for name in Architecture._fields if name not in OF_THE_FILE])
def test_each_part_of_the_network_has_its_flag_and_is_compared(part):
    value, flags = OTHER_PARTS[part]
    other = Architecture()._replace(**{part: value})
    assert train_settings(list(flags)).network.architecture == other
    assert differences(other, Architecture())
    assert with_values(train_settings([]), network_values(other)).network.architecture == other


def test_the_detectors_defaults_are_the_flags():
    settings = train_settings([])
    assert vars(settings.loss) == vars(DEFAULT_LOSS)
    assert vars(settings.detection) == vars(DEFAULT_DETECTION)


def test_a_flag_keeps_its_type():
    settings = train_settings(["--coco_path", "a b", "--seed", "random"])
    assert settings.data.coco_path == Path("a b")
    assert settings.optimisation.seed == "random"


def test_a_flag_that_says_its_default_contradicts_nothing():
    settings = train_settings(["--schedule", "cosine", "--milestones", "48", "64"])
    assert settings.optimisation.schedule == "cosine"

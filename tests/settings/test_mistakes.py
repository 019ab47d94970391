"""A mistake on the command line ends in one line that suggests what was probably meant."""

import pytest

from retinanet.runtime.errors import UserError
from retinanet.settings.draw import draw_settings
from retinanet.settings.evaluate import evaluate_settings
from retinanet.settings.options import options_of
from retinanet.settings.sample_data import sample_data_settings
from retinanet.settings.train import TrainSettings, train_settings


@pytest.mark.parametrize(
    ("read", "words", "message"),
    [
        (train_settings, "--lr 0.1", "did you mean --learning_rate?"),
        (train_settings, "--batch-size 4", "did you mean --batch_size?"),
        (train_settings, "--Learning-Rate=1", "did you mean --learning_rate?"),
        (train_settings, "--learning_rte 1", "did you mean --learning_rate?"),
        (train_settings, "--num_workers 1", "did you mean --workers?"),
        (train_settings, "--output here", None),  # an unambiguous beginning
        (train_settings, "--backbone 18", "did you mean --depth?"),  # not short for --backbone_rate
        (train_settings, "--zzz", "unrecognized arguments: --zzz (--help lists the flags)"),
        (train_settings, "data", "unrecognized arguments: data (--help lists the flags)"),
        (train_settings, "--epochs many", "expected a whole number, 1 or more; got 'many'"),
        (train_settings, "--steps 100", "--steps only applies to --find_lr"),
        (evaluate_settings, "--ckpt x.pt", "did you mean --checkpoint_path?"),
        (evaluate_settings, "--split val", "did you mean --set_name?"),
        (draw_settings, "--conf 0.3", "did you mean --threshold?"),
    ],
)
def test_one_line_that_helps(read, words, message, capsys):
    if message is None:
        read(words.split())
        return
    with pytest.raises((SystemExit, UserError)) as ended:
        read(words.split())
    text = capsys.readouterr().err or str(ended.value)
    assert message in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--epochs", "3", "--help"]])
def test_the_short_help_shows_the_most_used_flags(words, capsys):
    with pytest.raises(SystemExit) as ended:
        train_settings(words)
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--help all shows all" in out
    assert "--learning_rate" in out
    assert "--background_iou" not in out
    assert len(out.splitlines()) < 50


def test_all_flags_are_shown_when_asked_for(capsys):
    with pytest.raises(SystemExit):
        train_settings(["--help", "all"])
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name in options_of(TrainSettings))


@pytest.mark.parametrize(
    ("read", "words", "texts"),
    [
        (
            train_settings,
            ["--help", "all"],
            [
                *("learning rates to try (50 or more; default: 300)", "in a row (1 or more; default: 10)"),
                *(
                    "auto (GPU only): as many",
                    "that overlaps a better one of its class by more than this IoU (0 to 1; default: 0.5)",
                ),
                *("the longer side scales along (64 or more; default: --min_side only)", "from near 0 (default: 0)"),
            ],
        ),
        (draw_settings, ["--help", "all"], ["(100 to 10000; default: 480; with", "grid (1 or more; default: 1)"]),
        (
            sample_data_settings,
            ["--help"],
            ["dataset without a download. Cut-outs", "--seed SEED seed of the random scenes; the same seed writes"],
        ),
    ],
)
def test_help_names_the_limits_of_numbers(read, words, texts, capsys):
    with pytest.raises(SystemExit):
        read(words)
    out = " ".join(capsys.readouterr().out.split())
    assert [text for text in texts if text not in out] == []

"""Flags of what a run writes, how fast it is, and what keeps it safe."""

import argparse
from pathlib import Path

from retinanet.cli.flags import given, number_above, whole_number
from retinanet.cli.shared_flags import add_log_dir_flag
from retinanet.data.settings import FROM_ORIGINAL
from retinanet.runtime.errors import UserError
from retinanet.tracking.trackers import KINDS
from retinanet.training.settings import TrainSettings


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--compile",
        choices=("auto", "on", "off"),
        help="torch.compile the step, for a few padded shapes; auto: on a GPU, if the run is long enough to repay it",
    )
    group.add_argument(
        "--cache",
        choices=("none", "ram"),
        help="ram: keep decoded and resized training images in memory, up to half of what is free; the processes of a "
        "machine share it",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output_path", type=Path, help="folder of the checkpoints and run.json")
    group.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in --output_path, to the same numbers; a folder without one gets a new run",
    )
    group.add_argument(
        "--save_every", type=whole_number(0), help="steps between saves of last.pt within an epoch; 0: none"
    )
    group.add_argument("--eval_every", type=whole_number(1), help="epochs between evaluations")
    group.add_argument(
        "--patience",
        type=whole_number(0),
        help="end the run after so many evaluations in a row without a higher AP; 0: never",
    )
    group.add_argument("--log_every", type=whole_number(1), help="steps between log lines")
    add_log_dir_flag(group)
    group.add_argument(
        "--track",
        choices=KINDS,
        nargs="+",
        help="also send the log's numbers to these trackers, each a package of its own",
    )


def add_safety_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("safety")
    group.add_argument(
        "--max_skipped",
        type=whole_number(1),
        help="a step whose loss or gradient is not finite is skipped; the run ends after this many in a row",
    )
    group.add_argument(
        "--timeout",
        type=number_above(0, 10**6),
        help="seconds to wait for a loader process or another rank before the run ends",
    )
    group.add_argument(
        "--deterministic", action="store_true", help="make a GPU repeat its numbers to the last digit; slower"
    )
    group.add_argument(
        "--verify_resume",
        type=whole_number(1),
        metavar="N",
        help="instead of a training, compare 2N steps bit for bit with N steps, a checkpoint and N more",
    )


def check_run_flags(settings: TrainSettings) -> None:
    """UserError where they contradict each other."""
    if settings.cache == "ram":
        resizing = (
            ("train_sides", settings.train_sides or ()),
            ("augment", FROM_ORIGINAL & {*(settings.augment or ())}),
        )
        for flag, values in resizing:
            if values:
                raise UserError(
                    f"--cache ram keeps images of one size, which doesn't suit --{flag} "
                    f"{' '.join(map(str, sorted(values)))}. Drop one of the two"
                )
    kinds = settings.track or ()
    if len(set(kinds)) < len(kinds):
        raise UserError(f"--track {' '.join(kinds)} names a tracker twice. Give each once")
    instead = [f"--{name}" for name in ("verify_resume", "find_lr") if getattr(settings, name)]
    if len(instead) > 1:
        raise UserError(f"{instead[0]} and {instead[1]} each replace the training. Give one of them")
    for name in ("resume", "seeds", "log_dir", "track"):
        if instead and given(settings, name):
            raise UserError(f"{instead[0]} keeps nothing of its training. Drop --{name}")

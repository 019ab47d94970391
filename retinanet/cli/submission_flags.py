"""The command line of test_submission.py, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import parsed, parser_of, refuse
from retinanet.cli.shared_flags import add_coco_path_flag, add_eval_backend_flag

BOXES = GIVEN, CORNERS = ("given", "corners")


@dataclass(frozen=True)
class SubmissionSettings:
    """What test_submission.py checks and writes."""

    coco_path: Path = Path("data")
    set_name: str = "test"
    results_path: Path | None = None
    fix: Path | None = None
    boxes: str = GIVEN
    category_offset: int = 0
    zip: Path | None = None
    eval_backend: str = "auto"


def submission_settings(argv: list[str] | None = None) -> SubmissionSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError if flags contradict each other."""
    settings = parsed(build_parser(), SubmissionSettings, argv)
    if settings.fix is None:
        refuse(settings, ("boxes", "category_offset"), "says how --fix reads the file: give --fix OUT.json, or drop it")
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        SubmissionSettings,
        "Check a result file before it is handed in; repair and pack it. "
        "Exit code 0: good, 1: findings, 2: can't be read.",
    )
    add_coco_path_flag(parser)
    parser.add_argument("--set_name", help="the set that the results are of")
    parser.add_argument(
        "--results_path", type=Path, help="the file, or a .zip with it (default: {set_name}_bbox_results.json)"
    )
    parser.add_argument(
        "--fix", type=Path, metavar="OUT.json", help="write a repaired copy here and check it; the input stays"
    )
    parser.add_argument(
        "--boxes", choices=BOXES, help="with --fix: the boxes of the file are right, or corners (x1, y1, x2, y2)"
    )
    parser.add_argument(
        "--category_offset", type=int, metavar="N", help="with --fix: a number to add to every category id"
    )
    parser.add_argument("--zip", type=Path, metavar="NAME.zip", help="if it is good, pack it to be handed in")
    add_eval_backend_flag(parser)
    return parser

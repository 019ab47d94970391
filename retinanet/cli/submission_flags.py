"""The command line of test_submission.py, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import parsed, parser_of
from retinanet.cli.shared_flags import add_coco_path_flag, add_eval_backend_flag


@dataclass(frozen=True)
class SubmissionSettings:
    """What test_submission.py checks and writes."""

    coco_path: Path = Path("data")
    set_name: str = "test"
    results_path: Path | None = None
    fix: Path | None = None
    zip: Path | None = None
    eval_backend: str = "auto"


def submission_settings(argv: list[str] | None = None) -> SubmissionSettings:
    """The settings that the command line `argv`, or this process's, gives."""
    return parsed(build_parser(), SubmissionSettings, argv)


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        SubmissionSettings,
        "Check a result file before it is handed in; correct and pack it. "
        "Exit code 0: good, 1: findings, 2: can't be read.",
    )
    add_coco_path_flag(parser)
    parser.add_argument("--set_name", help="the set that the results are of")
    parser.add_argument(
        "--results_path", type=Path, help="the file, or a .zip with it (default: {set_name}_bbox_results.json)"
    )
    parser.add_argument(
        "--fix", type=Path, metavar="OUT.json", help="write a copy here, corrected where that is safe, and check that"
    )
    parser.add_argument("--zip", type=Path, metavar="NAME.zip", help="if it is good, pack it to be handed in")
    add_eval_backend_flag(parser)
    return parser

"""Defines the flags of test_submission.py."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.settings.options import option, parsed
from retinanet.settings.shared import coco_path_option, eval_backend_option

GIVEN, CORNERS = BOXES = ("given", "corners")


@dataclass(frozen=True)
class SubmissionSettings:
    coco_path: Path = coco_path_option()
    set_name: str = option("test", "the set that the results belong to")
    results_path: Path | None = option(
        None, "the result file, or a .zip that holds it (default: {set_name}_bbox_results.json)", Path
    )
    fix: Path | None = option(
        None,
        "write a corrected copy here (only corrections that are certain), and check the copy; the input stays as it is",
        Path,
        metavar="OUT.json",
    )
    boxes: str = option(GIVEN, "with --fix: read the boxes as given, or as corners (x1, y1, x2, y2)", BOXES)
    category_offset: int = option(0, "with --fix: a number to add to every category id", int, metavar="N")
    zip: Path | None = option(
        None, "if there are no findings, also write a zip for the COCO server", Path, metavar="NAME.zip"
    )
    eval_backend: str = eval_backend_option()


def submission_settings(argv: list[str] | None = None) -> SubmissionSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = (
        "Check a COCO result file before you submit it; correct and pack it. "
        "Exit code 0: good, 1: findings, 2: can't be read."
    )
    settings, given = parsed(SubmissionSettings, description, argv)
    if settings.fix is None:
        given.refuse(("boxes", "category_offset"), "only applies to --fix. Set --fix OUT.json too, or remove it.")
    return settings

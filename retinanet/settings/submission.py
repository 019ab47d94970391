"""What test_submission.py can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.settings.options import option, parsed
from retinanet.settings.shared import coco_path_option, eval_backend_option

GIVEN, CORNERS = BOXES = ("given", "corners")


@dataclass(frozen=True)
class SubmissionSettings:
    coco_path: Path = coco_path_option()
    set_name: str = option("test", "the set that the results are of")
    results_path: Path | None = option(
        None, "the file, or a .zip with it (default: {set_name}_bbox_results.json)", Path
    )
    fix: Path | None = option(
        None, "write a repaired copy here and check it; the input stays", Path, metavar="OUT.json"
    )
    boxes: str = option(GIVEN, "with --fix: the boxes of the file are right, or corners (x1, y1, x2, y2)", BOXES)
    category_offset: int = option(0, "with --fix: a number to add to every category id", int, metavar="N")
    zip: Path | None = option(None, "if it is good, pack it to be handed in", Path, metavar="NAME.zip")
    eval_backend: str = eval_backend_option()


def submission_settings(argv: list[str] | None = None) -> SubmissionSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = (
        "Check a result file before it is handed in; repair and pack it. "
        "Exit code 0: good, 1: findings, 2: can't be read."
    )
    settings, given = parsed(SubmissionSettings, description, argv)
    if settings.fix is None:
        given.refuse(("boxes", "category_offset"), "says how --fix reads the file: give --fix OUT.json, or drop it")
    return settings

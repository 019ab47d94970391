"""What test_submission.py can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.settings.options import option, parsed
from retinanet.settings.shared import coco_path_option, eval_backend_option


@dataclass(frozen=True)
class SubmissionSettings:
    coco_path: Path = coco_path_option()
    set_name: str = option("test", "the set that the results are of")
    results_path: Path | None = option(
        None, "the file, or a .zip with it (default: {set_name}_bbox_results.json)", Path
    )
    fix: Path | None = option(
        None, "write a copy here, corrected where that is safe, and check that", Path, metavar="OUT.json"
    )
    zip: Path | None = option(None, "if it is good, pack it to be handed in", Path, metavar="NAME.zip")
    eval_backend: str = eval_backend_option()


def submission_settings(argv: list[str] | None = None) -> SubmissionSettings:
    """The settings that the command line `argv`, or this process's, gives."""
    description = (
        "Check a result file before it is handed in; correct and pack it. "
        "Exit code 0: good, 1: findings, 2: can't be read."
    )
    return parsed(SubmissionSettings, description, argv)[0]

"""The file names that COCO's evaluation server accepts."""

import re
from pathlib import Path

from retinanet.submission.check import NUM_EXAMPLES, ResultFinding

# The sets of its detection tasks; a file's name says which set it is of.
COCO_SETS = (
    "val2014",
    *(f"{part}{year}" for year in (2015, 2017) for part in ("test", "test-dev", "test-challenge")),
    "val2017",
)


def name_findings(path: Path, member: str | None, set_name: str) -> list[ResultFinding]:
    """A finding about the name of the zip `path` and of the `member` in it, if COCO's server would refuse them.

    None for other sets, which that server doesn't evaluate, and for other files, which aren't handed in yet.
    """
    if set_name not in COCO_SETS or path.suffix.lower() != ".zip":
        return []
    form = f"detections_{set_name}_ALGORITHM_results"
    pattern = re.escape(form).replace("ALGORITHM", r"[^\s/\\]+") + r"\.zip"
    wrong = [] if re.fullmatch(pattern, path.name) else [f"the file is called {path.name}"]
    if member is not None and member != f"{path.stem}.json":
        wrong.append(f"{path.name} holds {member}, not {path.stem}.json")
    fix = f"Hand in {form}.zip with just {form}.json in it, as --zip writes it; ALGORITHM is a name of your choice."
    problem = "file name that COCO's evaluation server doesn't accept"
    return [ResultFinding(problem, len(wrong), wrong[:NUM_EXAMPLES], fix, unusable=False)] if wrong else []

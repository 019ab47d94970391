"""Checks COCO result files and their names before submission."""

import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.boxes import corners_for_sizes
from retinanet.coco.json_values import is_id
from retinanet.coco.result_rows import (
    ENOUGH,
    NUM_EXAMPLES,
    NumberedRows,
    ResultFinding,
    complete_rows,
    finding_of,
    has_area,
    is_box,
    unusable_findings,
)
from retinanet.evaluation.matches import MAX_PER_CLASS

# Boxes are corners for certain if, read as (left, top, width, height), more than OVER_SHARE of them leave their image,
# and more than FAR_SHARE leave it by more than the fraction FAR of a side. Real detections don't.
OVER_SHARE, FAR, FAR_SHARE = 0.5, 0.25, 1 / 3
# The sets of the detection tasks on the COCO evaluation server, which expects a set's name in the file name.
COCO_SETS = (
    "val2014",
    *(f"{part}{year}" for year in (2015, 2017) for part in ("test", "test-dev", "test-challenge")),
    "val2017",
)


class Corners(NamedTuple):
    """The rows whose boxes look like (x1, y1, x2, y2) instead of (left, top, width, height)."""

    positions: list[int]  # indices of the rows whose boxes leave their image when read as (left, top, width, height)
    proved: bool  # False if corners are merely possible: boxes that were not clipped can look the same


def check_results(rows: Any, annotations: Annotations) -> list[ResultFinding]:
    """Returns the findings about `rows`, a parsed result file for the set of `annotations`, most serious first."""
    findings = unusable_findings(rows, annotations)
    if not isinstance(rows, list):
        return findings
    complete = complete_rows(rows)
    sizes = sizes_by_id(annotations)
    positive = with_area_in_set(complete, sizes)
    outside = {
        index: f"bbox {row['bbox']} in an image of {sizes[row['image_id']]} (height, width)"
        for index, row in positive
        if not _touches(row["bbox"], sizes[row["image_id"]])
    }
    others = [
        _corners_finding(positive, sizes),
        finding_of(
            "bbox outside of its image",
            outside,
            "Write pixels of the original image, not of the resized image and not fractions of its sides.",
            unusable=False,
        ),
        _fractions_finding(positive, sizes),
        _too_many([(index, row) for index, row in complete if is_box(row["bbox"])]),
        _duplicates(complete),
    ]
    return findings + [finding for finding in others if finding]


def name_findings(path: Path, member: str | None, set_name: str) -> list[ResultFinding]:
    """Returns a finding if the COCO server would reject the name of the zip `path` or of its `member`.

    Names are checked only for sets that the server evaluates, and only for zips, because no other file can be
    submitted.
    """
    if set_name not in COCO_SETS or path.suffix.lower() != ".zip":
        return []
    form = f"detections_{set_name}_ALGORITHM_results"
    pattern = re.escape(form).replace("ALGORITHM", r"[^\s/\\]+") + r"\.zip"
    wrong = [] if re.fullmatch(pattern, path.name) else [f"the file is called {path.name}"]
    if member is not None and member != f"{path.stem}.json":
        wrong.append(f"{path.name} holds {member}, not {path.stem}.json")
    fix = f"Submit {form}.zip with only {form}.json in it, as --zip writes it; ALGORITHM is a name of your choice."
    problem = "file name that COCO's evaluation server doesn't accept"
    return [ResultFinding(problem, len(wrong), wrong[:NUM_EXAMPLES], fix, unusable=False)] if wrong else []


def images_without_detection(rows: list[dict[str, Any]], annotations: Annotations) -> list[int]:
    """Returns the ids of the set's images that have no row in the checked `rows`."""
    seen = {row["image_id"] for row in rows}
    return [image_id for image_id in annotations.image_ids.tolist() if image_id not in seen]


def sizes_by_id(annotations: Annotations) -> dict[int, list[int]]:
    """Returns the (height, width) of each image, keyed by image id."""
    return dict(zip(annotations.image_ids.tolist(), annotations.sizes.tolist(), strict=True))


def with_area_in_set(rows: NumberedRows, sizes: dict[int, list[int]]) -> NumberedRows:
    """Returns the rows whose box has a positive area and whose image is in the set."""
    boxed = [(index, row) for index, row in rows if is_box(row["bbox"]) and has_area(row["bbox"])]
    return [(index, row) for index, row in boxed if is_id(row["image_id"]) and row["image_id"] in sizes]


def corners_in(rows: NumberedRows, sizes: dict[int, list[int]]) -> Corners:
    """Returns the Corners among `rows`; each row must have a box with a positive area, and an image in `sizes`."""
    if not rows:
        return Corners([], False)
    boxes = np.array([row["bbox"] for _, row in rows], dtype=float)
    images = np.array([sizes[row["image_id"]] for _, row in rows], dtype=float)
    over = corners_for_sizes(boxes, images)
    far = (boxes[:, :2] + boxes[:, 2:] > (1 + FAR) * images[:, ::-1]).any(axis=1)
    proved = over.mean() > OVER_SHARE and far.mean() > FAR_SHARE and far.sum() >= ENOUGH
    return Corners(np.flatnonzero(over).tolist(), bool(proved))


def sameness(row: dict[str, Any]) -> Hashable:
    """Returns a key that is the same for all duplicates of a row."""
    if is_id(row["image_id"]) and is_id(row["category_id"]) and is_box(row["bbox"]):
        return (row["image_id"], row["category_id"], *row["bbox"])
    return repr((row["image_id"], row["category_id"], row["bbox"]))  # any other JSON values


def place_in_table(row: dict[str, Any]) -> tuple[int, int] | None:
    """Returns a row's (image id, category id), or None if either isn't an id. COCO limits the detections per pair."""
    return (row["image_id"], row["category_id"]) if is_id(row["image_id"]) and is_id(row["category_id"]) else None


def _touches(box: list[float], size: list[int]) -> bool:
    left, top, width, height = box
    return left < size[1] and top < size[0] and left + width > 0 and top + height > 0


def _corners_finding(rows: NumberedRows, sizes: dict[int, list[int]]) -> ResultFinding | None:
    """Returns a finding if the boxes are certainly corners (see OVER_SHARE)."""
    positions, proved = corners_in(rows, sizes)
    bad = {rows[i][0]: f"bbox {rows[i][1]['bbox']} extends past its image" for i in positions if proved}
    fix = "Write [x1, y1, x2 - x1, y2 - y1]: COCO boxes have a width and a height."
    return finding_of("bbox written as (x1, y1, x2, y2)", bad, fix, unusable=False, whole_column=True)


def _fractions_finding(rows: NumberedRows, sizes: dict[int, list[int]]) -> ResultFinding | None:
    """Returns a finding if all boxes look like fractions of the image sides: no right or bottom edge is beyond 1.5."""
    ends = [(row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]) for _, row in rows]
    if not rows or max(map(max, ends)) > 1.5 or min(min(sizes[row["image_id"]]) for _, row in rows) < 8:
        return None
    return finding_of(
        "bbox in fractions of the image's sides",
        {index: f"bbox {row['bbox']} in an image of {sizes[row['image_id']]}" for index, row in rows},
        "Multiply by width and height: COCO boxes are in pixels.",
        unusable=False,
        whole_column=True,
    )


def _too_many(rows: NumberedRows) -> ResultFinding | None:
    counts = Counter(place for _, row in rows if (place := place_in_table(row)))
    crowded = [
        f"image {image_id} has {count} of category {category_id}"
        for (image_id, category_id), count in counts.items()
        if count > MAX_PER_CLASS
    ]
    if not crowded:
        return None
    fix = f"Keep the {MAX_PER_CLASS} top-scoring detections of each class in an image: COCO's evaluation ignores more."
    problem = f"more than {MAX_PER_CLASS} detections of a class in an image"
    return ResultFinding(problem, len(crowded), crowded[:NUM_EXAMPLES], fix, unusable=False)


def _duplicates(rows: NumberedRows) -> ResultFinding | None:
    first: dict[Hashable, int] = {}
    repeated = {}
    for index, row in rows:
        key = sameness(row)
        if first.setdefault(key, index) != index:
            repeated[index] = f"repeats row {first[key]}"
    problem = "duplicates: the same image, category and box"
    return finding_of(problem, repeated, "Write each detection once.", unusable=False)

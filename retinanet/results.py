"""COCO result files: written whole, and checked row by row before they are handed in."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.annotations import Annotations, is_id, is_number
from retinanet.errors import UserError

KEYS = ("image_id", "category_id", "bbox", "score")
MAX_PER_IMAGE = 100  # COCO's evaluation looks at no more
FEW = 3  # examples shown of a finding
XYXY_SHARE = 0.1  # of the boxes that stick out of their image if read as width and height


class Finding(NamedTuple):
    """One kind of mistake in a result file."""

    problem: str
    num_rows: int
    examples: list[str]
    fix: str


def write_results(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a result file beside `path`, then rename it, so that no half-written file is ever handed in."""
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os.replace(beside, path)
    except OSError as fault:
        raise UserError(f"{path}: can't be written ({fault.strerror}). Choose another --results_path.") from None


def check_results(rows: Any, annotations: Annotations) -> list[Finding]:
    """All that is wrong with the parsed result file `rows` for the set of `annotations`, gravest first."""
    if not isinstance(rows, list):
        shape = f"the file holds a JSON {type(rows).__name__}, not a list of detections"
        return [Finding(shape, 1, [], "Write a list: [{image_id, category_id, bbox, score}, ...].")]
    lacking = {
        index: f"has no {', '.join(missing)}" if isinstance(row, dict) else f"is {row!r:.60}"
        for index, row in enumerate(rows)
        if not isinstance(row, dict) or (missing := [key for key in KEYS if key not in row])
    }
    whole = [(index, row) for index, row in enumerate(rows) if index not in lacking]
    sizes = dict(zip(annotations.image_ids.tolist(), annotations.sizes.tolist(), strict=True))
    boxed = [(index, row) for index, row in whole if _is_box(row["bbox"])]
    placed = [(index, row) for index, row in boxed if is_id(row["image_id"]) and row["image_id"] in sizes]
    positive = [(index, row) for index, row in placed if row["bbox"][2] > 0 and row["bbox"][3] > 0]

    findings = [
        _finding("not an object with the keys " + ", ".join(KEYS), lacking, "Write all four keys in every row."),
        _bad_values(
            "image_id not in the set",
            whole,
            "image_id",
            lambda value: is_id(value) and value in sizes,
            f"Use the image ids of {annotations.path}; is this the result of another set?",
        ),
        _category_finding(whole, annotations),
        _bad_values(
            "bbox not four finite numbers", whole, "bbox", _is_box, "Write [left, top, width, height] in pixels."
        ),
        _bad_values(
            "bbox without a positive width and height",
            boxed,
            "bbox",
            lambda box: box[2] > 0 and box[3] > 0,
            "Write [left, top, width, height], and leave out boxes without area.",
        ),
        _xyxy_finding(positive, sizes),
        _finding(
            "bbox outside of its image",
            {
                index: f"bbox {row['bbox']} in an image of {sizes[row['image_id']]} (height, width)"
                for index, row in positive
                if not _touches(row["bbox"], sizes[row["image_id"]])
            },
            "Write pixels of the original image, not of the resized one or shares of its sides.",
        ),
        _bad_values(
            "score not a number from 0 to 1",
            whole,
            "score",
            lambda score: is_number(score) and 0 <= score <= 1,
            "Write the probability, not the logit or per cent.",
        ),
        _too_many(whole),
        _duplicates(whole),
    ]
    return [finding for finding in findings if finding]


def images_without_detection(rows: list[dict[str, Any]], annotations: Annotations) -> list[int]:
    """The ids of the set's images that checked `rows` have nothing about."""
    seen = {row["image_id"] for row in rows}
    return [image_id for image_id in annotations.image_ids.tolist() if image_id not in seen]


def _finding(problem: str, bad: dict[int, str], fix: str) -> Finding | None:
    examples = [f"row {index} {text}" for index, text in list(bad.items())[:FEW]]
    return Finding(problem, len(bad), examples, fix) if bad else None


def _bad_values(
    problem: str, rows: Iterable[tuple[int, dict[str, Any]]], key: str, good: Callable[[Any], bool], fix: str
) -> Finding | None:
    return _finding(problem, {i: f"has {key} {row[key]!r:.80}" for i, row in rows if not good(row[key])}, fix)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _touches(box: list[float], size: list[int]) -> bool:
    left, top, width, height = box
    return left < size[1] and top < size[0] and left + width > 0 and top + height > 0


def _category_finding(rows: list[tuple[int, dict[str, Any]]], annotations: Annotations) -> Finding | None:
    known = set(annotations.category_ids)
    problem, fix = "category_id not in the set", f"Use the category ids of {annotations.path}: {sorted(known)}."
    used = {row["category_id"] for _, row in rows if is_id(row["category_id"])}
    for step, words in ((1, "too low"), (-1, "too high")):
        if not used <= known and {category_id + step for category_id in used} <= known:
            problem = f"category_id off by one: all are one {words}"
            fix = f"Write the data set's category ids {sorted(known)}, not labels counted from {min(used)}."
    return _bad_values(problem, rows, "category_id", lambda value: is_id(value) and value in known, fix)


def _xyxy_finding(rows: list[tuple[int, dict[str, Any]]], sizes: dict[int, list[int]]) -> Finding | None:
    """Boxes written by their corners: read so, all lie in their images; read as sizes, many stick out."""
    if not rows:
        return None
    boxes = np.array([row["bbox"] for _, row in rows], dtype=float)
    limits = np.array([sizes[row["image_id"]] for _, row in rows], dtype=float)[:, ::-1] + 1  # (width, height)
    fits_as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits)).all()
    sticks_out = (boxes[:, :2] + boxes[:, 2:] > limits).any(axis=1)
    if not fits_as_corners or sticks_out.mean() < XYXY_SHARE:
        return None
    bad = {rows[i][0]: f"bbox {rows[i][1]['bbox']} reaches over its image" for i in np.flatnonzero(sticks_out)}
    return _finding(
        "bbox written as (x1, y1, x2, y2)", bad, "Write [x1, y1, x2 - x1, y2 - y1]: COCO wants width and height."
    )


def _too_many(rows: list[tuple[int, dict[str, Any]]]) -> Finding | None:
    counts = Counter(str(row["image_id"]) for _, row in rows)
    crowded = [f"image {image_id} has {count}" for image_id, count in counts.items() if count > MAX_PER_IMAGE]
    if not crowded:
        return None
    fix = f"Keep the {MAX_PER_IMAGE} best of each image: COCO's evaluation looks at no more."
    return Finding(f"more than {MAX_PER_IMAGE} detections in an image", len(crowded), crowded[:FEW], fix)


def _duplicates(rows: list[tuple[int, dict[str, Any]]]) -> Finding | None:
    first: dict[str, int] = {}
    repeated = {}
    for index, row in rows:
        key = repr((row["image_id"], row["category_id"], row["bbox"]))
        if first.setdefault(key, index) != index:
            repeated[index] = f"repeats row {first[key]}"
    return _finding("duplicates: the same image, category and box", repeated, "Write each detection once.")

"""COCO result files: written whole, and checked row by row before they are handed in."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.annotation_entries import is_id, is_number
from retinanet.annotations import Annotations, corners_for_sizes, read_json
from retinanet.errors import UserError
from retinanet.files import written_whole

KEYS = ("image_id", "category_id", "bbox", "score")
MAX_PER_IMAGE = 100  # COCO's evaluation looks at no more
FEW = 3  # examples shown of a finding


class Finding(NamedTuple):
    """One kind of mistake in a result file."""

    problem: str
    num_rows: int
    examples: list[str]
    fix: str
    unusable: bool = True  # such rows can neither be drawn nor evaluated


def write_results(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a result file, whole or not at all. UserError where the place can't be written to."""
    try:
        with written_whole(path) as file:
            json.dump(rows, file)
    except OSError as fault:
        raise UserError(f"{path}: can't be written ({fault.strerror}). Choose another --results_path.") from None


def load_results(path: Path, annotations: Annotations) -> list[dict[str, Any]]:
    """The rows of a result file of the set; UserError where they can't be drawn or evaluated."""
    rows = read_json(path)
    for finding in check_results(rows, annotations):
        if finding.unusable:
            raise UserError(f"{path}: {finding.problem} ({finding.num_rows} times). {finding.fix}")
    return rows


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
            unusable=False,
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


def default_results_path(set_name: str) -> Path:
    return Path(f"{set_name}_bbox_results.json")


def images_without_detection(rows: list[dict[str, Any]], annotations: Annotations) -> list[int]:
    """The ids of the set's images that checked `rows` have nothing about."""
    seen = {row["image_id"] for row in rows}
    return [image_id for image_id in annotations.image_ids.tolist() if image_id not in seen]


def _finding(problem: str, bad: dict[int, str], fix: str, unusable: bool = True) -> Finding | None:
    examples = [f"row {index} {text}" for index, text in list(bad.items())[:FEW]]
    return Finding(problem, len(bad), examples, fix, unusable) if bad else None


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
    known = annotations.category_ids
    right = f"Write the data set's category ids {known}"
    used = {row["category_id"] for _, row in rows if is_id(row["category_id"])}
    if not used <= set(known):
        every = {index: f"has category_id {row['category_id']!r}" for index, row in rows}
        for step, words in ((1, "low"), (-1, "high")):
            if {category_id + step for category_id in used} <= set(known):
                return _finding(f"category_id off by one: all are one too {words}", every, f"{right}.")
        if used <= set(range(len(known))):
            return _finding("category_id counts the classes from 0", every, f"{right}, in this order.")
    return _bad_values(
        "category_id not in the set", rows, "category_id", lambda value: is_id(value) and value in known, f"{right}."
    )


def _xyxy_finding(rows: list[tuple[int, dict[str, Any]]], sizes: dict[int, list[int]]) -> Finding | None:
    """Boxes written by their corners: read so, all lie in their images; read as sizes, many stick out."""
    if not rows:
        return None
    boxes = np.array([row["bbox"] for _, row in rows], dtype=float)
    wrong = corners_for_sizes(boxes, np.array([sizes[row["image_id"]] for _, row in rows], dtype=float))
    bad = {rows[i][0]: f"bbox {rows[i][1]['bbox']} reaches over its image" for i in np.flatnonzero(wrong)}
    fix = "Write [x1, y1, x2 - x1, y2 - y1]: COCO wants width and height."
    return _finding("bbox written as (x1, y1, x2, y2)", bad, fix, unusable=False)


def _too_many(rows: list[tuple[int, dict[str, Any]]]) -> Finding | None:
    counts = Counter(str(row["image_id"]) for _, row in rows)
    crowded = [f"image {image_id} has {count}" for image_id, count in counts.items() if count > MAX_PER_IMAGE]
    if not crowded:
        return None
    fix = f"Keep the {MAX_PER_IMAGE} best of each image: COCO's evaluation looks at no more."
    return Finding(
        f"more than {MAX_PER_IMAGE} detections in an image", len(crowded), crowded[:FEW], fix, unusable=False
    )


def _duplicates(rows: list[tuple[int, dict[str, Any]]]) -> Finding | None:
    first: dict[str, int] = {}
    repeated = {}
    for index, row in rows:
        key = repr((row["image_id"], row["category_id"], row["bbox"]))
        if first.setdefault(key, index) != index:
            repeated[index] = f"repeats row {first[key]}"
    problem = "duplicates: the same image, category and box"
    return _finding(problem, repeated, "Write each detection once.", unusable=False)

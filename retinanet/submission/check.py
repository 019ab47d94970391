"""Checks of COCO result files, row by row, before they are handed in."""

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations
from retinanet.coco.folder import other_sets
from retinanet.coco.json_values import is_id
from retinanet.coco.results import KEYS, Found, found_of, read_results
from retinanet.evaluation.matches import MAX_PER_CLASS
from retinanet.runtime.errors import UserError
from retinanet.submission.rows import (
    NumberedRows,
    cannot_be_as_written,
    category_readings,
    corners_in,
    is_box,
    is_probability,
    place_in_table,
    sameness,
    sizes_by_id,
    with_area_in_set,
)

NUM_EXAMPLES = 3  # shown of a finding


class ResultFinding(NamedTuple):
    """One kind of mistake in a result file."""

    problem: str
    num_rows: int
    examples: list[str]
    fix: str
    unusable: bool = True  # such rows can neither be drawn nor evaluated


def load_results(path: Path, annotations: Annotations) -> Found:
    """The detections of a result file of the set; UserError where they can't be drawn or evaluated."""
    rows = read_results(path).rows
    for finding in check_results(rows, annotations):
        if finding.unusable:
            other = set_of(rows, annotations)
            fix = (
                f"Its images and categories are those of the set {other}: give --set_name {other}."
                if other
                else finding.fix
            )
            times = f" ({finding.num_rows} times)" if finding.num_rows > 1 else ""
            raise UserError(f"{path}: {finding.problem}{times}. {fix}")
    return found_of(rows, annotations)


def set_of(rows: Any, annotations: Annotations) -> str | None:
    """Another set of the data folder that has all images and categories of the rows; None if none has."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {*KEYS} <= row.keys() for row in rows):
        return None
    for name, file in other_sets(annotations.path).items():
        try:
            other = load_annotations(file)
        except UserError:
            continue  # not an annotation file, or a broken one
        ids, category_ids = set(other.image_ids.tolist()), set(other.category_ids)
        if all(is_id(row["image_id"]) and row["image_id"] in ids for row in rows) and all(
            is_id(row["category_id"]) and row["category_id"] in category_ids for row in rows
        ):
            return name
    return None


def check_results(rows: Any, annotations: Annotations) -> list[ResultFinding]:
    """The findings in the parsed result file `rows` of the set of `annotations`, the gravest first."""
    if not isinstance(rows, list):
        problem = f"the file holds a JSON {type(rows).__name__}, not a list of detections"
        fix = "Write a list: [{image_id, category_id, bbox, score}, ...]."
        if isinstance(rows, dict) and {"images", "annotations"} <= rows.keys():
            problem, fix = "an annotation file, not a result file", "Give the result file that test.py writes."
        return [ResultFinding(problem, 1, [], fix)]
    lacking = {
        index: f"has no {', '.join(missing)}" if isinstance(row, dict) else f"is {row!r:.60}"
        for index, row in enumerate(rows)
        if not isinstance(row, dict) or (missing := [key for key in KEYS if key not in row])
    }
    whole = [(index, row) for index, row in enumerate(rows) if index not in lacking]
    sizes = sizes_by_id(annotations)
    findings = [
        _finding("not an object with the keys " + ", ".join(KEYS), lacking, "Write all four keys in every row."),
        _bad_values(
            "image_id not in the set",
            whole,
            "image_id",
            lambda value: is_id(value) and value in sizes,
            f"Use the image ids of {annotations.path}. Is this the result of another set?",
        ),
        _category_finding(whole, annotations),
        *_box_findings(whole, sizes),
        _bad_values(
            "score not a number from 0 to 1",
            whole,
            "score",
            is_probability,
            "Write the probability, not the logit or a percentage.",
        ),
        _too_many([(index, row) for index, row in whole if is_box(row["bbox"])]),
        _duplicates(whole),
    ]
    return [finding for finding in findings if finding]


def _box_findings(rows: NumberedRows, sizes: dict[int, list[int]]) -> list[ResultFinding | None]:
    boxed = [(index, row) for index, row in rows if is_box(row["bbox"])]
    positive = with_area_in_set(boxed, sizes)
    return [
        _bad_values(
            "bbox not four finite numbers", rows, "bbox", is_box, "Write [left, top, width, height] in pixels."
        ),
        _bad_values(
            "bbox without a positive width and height",
            boxed,
            "bbox",
            lambda box: box[2] > 0 and box[3] > 0,
            "Write [left, top, width, height], and drop boxes without area.",
        ),
        _xyxy_finding(positive, sizes),
        _finding(
            "bbox outside of its image",
            {
                index: f"bbox {row['bbox']} in an image of {sizes[row['image_id']]} (height, width)"
                for index, row in positive
                if not _touches(row["bbox"], sizes[row["image_id"]])
            },
            "Write pixels of the original image, not of the resized image and not fractions of its sides.",
            unusable=False,
        ),
        _shares_finding(positive, sizes),
    ]


def images_without_detection(rows: list[dict[str, Any]], annotations: Annotations) -> list[int]:
    """The ids of the set's images without a row in checked `rows`."""
    seen = {row["image_id"] for row in rows}
    return [image_id for image_id in annotations.image_ids.tolist() if image_id not in seen]


def _finding(problem: str, bad: dict[int, str], fix: str, unusable: bool = True) -> ResultFinding | None:
    examples = [f"row {index} {text}" for index, text in list(bad.items())[:NUM_EXAMPLES]]
    return ResultFinding(problem, len(bad), examples, fix, unusable) if bad else None


def _bad_values(
    problem: str, rows: NumberedRows, key: str, good: Callable[[Any], bool], fix: str
) -> ResultFinding | None:
    return _finding(problem, {i: f"has {key} {row[key]!r:.80}" for i, row in rows if not good(row[key])}, fix)


def _touches(box: list[float], size: list[int]) -> bool:
    left, top, width, height = box
    return left < size[1] and top < size[0] and left + width > 0 and top + height > 0


def _category_finding(rows: NumberedRows, annotations: Annotations) -> ResultFinding | None:
    right = f"Write the category ids of the data set {annotations.category_ids}"
    problems = [problem for problem, _ in category_readings(rows, annotations.category_ids)]
    if problems and cannot_be_as_written(rows, annotations.category_ids):
        every = {index: f"has category_id {row['category_id']!r}" for index, row in rows}
        return _finding(problems[0], every, f"{right}, in this order." if "counts" in problems[0] else f"{right}.")
    known = set(annotations.category_ids)
    fix = f"{right}, and no background." + "".join(f" Or is it: {problem}?" for problem in problems)
    return _bad_values(
        "category_id not in the set", rows, "category_id", lambda value: is_id(value) and value in known, fix
    )


def _shares_finding(rows: NumberedRows, sizes: dict[int, list[int]]) -> ResultFinding | None:
    """Boxes in fractions of the sides lie in the first pixel of their images."""
    ends = [(row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]) for _, row in rows]
    if not rows or max(map(max, ends)) > 1.5 or min(min(sizes[row["image_id"]]) for _, row in rows) < 8:
        return None
    bad = {index: f"bbox {row['bbox']} in an image of {sizes[row['image_id']]}" for index, row in rows}
    return _finding(
        "bbox in shares of the image's sides", bad, "Multiply by width and height: COCO's boxes are in pixels.", False
    )


def _xyxy_finding(rows: NumberedRows, sizes: dict[int, list[int]]) -> ResultFinding | None:
    """Boxes written as corners lie in their images; read as sizes, most leave them, and many by far."""
    positions, proved = corners_in(rows, sizes)
    bad = {rows[i][0]: f"bbox {rows[i][1]['bbox']} extends past its image" for i in positions if proved}
    fix = "Write [x1, y1, x2 - x1, y2 - y1]: COCO's boxes have a width and a height."
    return _finding("bbox written as (x1, y1, x2, y2)", bad, fix, unusable=False)


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
    return _finding(problem, repeated, "Write each detection once.", unusable=False)

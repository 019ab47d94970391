"""Checks the rows of a result file; rows that fail a check can be neither drawn nor evaluated."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations
from retinanet.coco.folder import other_sets
from retinanet.coco.json_values import is_id, is_number
from retinanet.runtime.errors import UserError

KEYS = ("image_id", "category_id", "bbox", "score")
NumberedRows = list[tuple[int, dict[str, Any]]]  # rows that have all keys, with their indices in the file
NUM_EXAMPLES = 3  # the number of examples shown for a finding
FOREIGN_SHARE = 0.5  # if more than this fraction of the rows have unknown image ids, the ids belong to another set
SLIGHTLY = 1e-3  # the rounding error of a probability stored in 16 bits
# If more than this fraction of the scores, and more than one, are outside 0 to 1 by more than SLIGHTLY, they aren't
# probabilities.
FAR_SCORES_SHARE = 0.1
ENOUGH = 10  # fewer suspect rows than this prove nothing about the file
# Rows whose category ids are neither the set's nor a background class's count as strays, unless they make up more than
# STRAY_SHARE of all rows, or more than SEVERAL_SHARE with at least SEVERAL different ids.
STRAY_SHARE, SEVERAL, SEVERAL_SHARE = 0.1, 3, 0.01


class ResultFinding(NamedTuple):
    """One kind of mistake in a result file."""

    problem: str
    num_rows: int
    examples: list[str]
    fix: str
    unusable: bool = True  # the rows can be neither drawn nor evaluated
    whole_column: bool = False  # the program that wrote the file uses this key for something else


def unusable_findings(rows: Any, annotations: Annotations) -> list[ResultFinding]:
    """Returns the findings that make rows unusable for the set of `annotations`, the most serious first."""
    if not isinstance(rows, list):
        problem = f"the file holds a JSON {type(rows).__name__}, not a list of detections"
        fix = "Write a list: [{image_id, category_id, bbox, score}, ...]."
        if isinstance(rows, dict) and {"images", "annotations"} <= rows.keys():
            problem, fix = "an annotation file, not a result file", "Use the result file that test.py writes."
        return [ResultFinding(problem, 1, [], fix)]
    lacking = {
        index: f"has no {', '.join(missing)}" if isinstance(row, dict) else f"is {row!r:.60}"
        for index, row in enumerate(rows)
        if not isinstance(row, dict) or (missing := [key for key in KEYS if key not in row])
    }
    complete = complete_rows(rows)
    boxed = [(index, row) for index, row in complete if is_box(row["bbox"])]
    findings = [
        finding_of("not an object with the keys " + ", ".join(KEYS), lacking, "Write all four keys in every row."),
        _image_finding(complete, annotations),
        _category_finding(complete, annotations),
        _bad_values(
            "bbox not four finite numbers", complete, "bbox", is_box, "Write [left, top, width, height] in pixels."
        ),
        _bad_values(
            "bbox without a positive width and height",
            boxed,
            "bbox",
            has_area,
            "Write [left, top, width, height], and drop boxes without area.",
        ),
        _score_finding(complete),
    ]
    return [finding for finding in findings if finding]


def set_of(rows: Any, annotations: Annotations) -> str | None:
    """Returns the name of another set in the data folder that has all the rows' images and categories, or None."""
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


def complete_rows(rows: list[Any]) -> NumberedRows:
    """Returns the rows that have all four keys, with their indices."""
    return [(index, row) for index, row in enumerate(rows) if isinstance(row, dict) and all(key in row for key in KEYS)]


def finding_of(
    problem: str, bad: dict[int, str], fix: str, *, unusable: bool = True, whole_column: bool = False
) -> ResultFinding | None:
    """Returns a finding about the `bad` rows, a dict from row index to description; None if the dict is empty."""
    examples = [f"row {index} {text}" for index, text in list(bad.items())[:NUM_EXAMPLES]]
    return ResultFinding(problem, len(bad), examples, fix, unusable, whole_column) if bad else None


def is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    left, top, width, height = value  # a loop would take twice as long, and large files need millions of calls
    return is_number(left) and is_number(top) and is_number(width) and is_number(height)


def has_area(box: list[float]) -> bool:
    return box[2] > 0 and box[3] > 0


def is_probability(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def category_readings(rows: NumberedRows, known: list[int]) -> list[tuple[str, dict[int, int]]]:
    """Returns other readings of the category ids, each as (mistake, {id: correct id}); none if all ids are `known`.

    Such a reading doesn't prove that there is a mistake: a correct file may have other readings, too, if it contains
    rows of a background class or stray rows (see cannot_be_as_written).
    """
    used = {row["category_id"] for _, row in rows if is_id(row["category_id"])}
    if used <= set(known):
        return []
    readings = {
        f"category_id off by one: all are one too {words}": {category_id: category_id + step for category_id in used}
        for step, words in ((1, "low"), (-1, "high"))
    }
    for first in (0, 1):
        if used <= set(range(first, first + len(known))):
            right = {category_id: known[category_id - first] for category_id in used}
            readings[f"category_id counts the classes from {first}"] = right
    fitting = [(problem, right) for problem, right in readings.items() if set(right.values()) <= set(known)]
    return [reading for i, reading in enumerate(fitting) if reading[1] not in [right for _, right in fitting[:i]]]


def cannot_be_as_written(rows: NumberedRows, known: list[int]) -> bool:
    """Returns True if the category ids can't be right, even allowing for stray rows and a background class.

    `known` holds the set's category ids in ascending order.
    """
    counts = Counter(row["category_id"] for _, row in rows if is_id(row["category_id"]))
    if counts.keys().isdisjoint(known):
        return bool(counts)
    background = {0, *(first - 1 for first in known[:1]), *(last + 1 for last in known[-1:])}
    odd = [count for category_id, count in counts.items() if category_id not in background.union(known)]
    share = sum(odd) / counts.total()
    return sum(odd) >= ENOUGH and (share > STRAY_SHARE or (len(odd) >= SEVERAL and share > SEVERAL_SHARE))


def _bad_values(
    problem: str, rows: NumberedRows, key: str, good: Callable[[Any], bool], fix: str
) -> ResultFinding | None:
    return finding_of(problem, {i: f"has {key} {row[key]!r:.80}" for i, row in rows if not good(row[key])}, fix)


def _image_finding(rows: NumberedRows, annotations: Annotations) -> ResultFinding | None:
    known = set(annotations.image_ids.tolist())
    fix = f"Use the image ids of {annotations.path}. Is this the result of another set?"
    finding = _bad_values(
        "image_id not in the set", rows, "image_id", lambda value: is_id(value) and value in known, fix
    )
    return finding and finding._replace(whole_column=finding.num_rows > FOREIGN_SHARE * len(rows))


def _category_finding(rows: NumberedRows, annotations: Annotations) -> ResultFinding | None:
    right = f"Write the category ids of the dataset {annotations.category_ids}"
    problems = [problem for problem, _ in category_readings(rows, annotations.category_ids)]
    is_wrong = cannot_be_as_written(rows, annotations.category_ids)
    if problems and is_wrong:
        every = {index: f"has category_id {row['category_id']!r}" for index, row in rows}
        fix = f"{right}, in this order." if "counts" in problems[0] else f"{right}."
        return finding_of(problems[0], every, fix, whole_column=True)
    known = set(annotations.category_ids)
    fix = f"{right}, and no background." + "".join(f" Or is it: {problem}?" for problem in problems)
    finding = _bad_values(
        "category_id not in the set", rows, "category_id", lambda value: is_id(value) and value in known, fix
    )
    return finding and finding._replace(whole_column=is_wrong)


def _score_finding(rows: NumberedRows) -> ResultFinding | None:
    finding = _bad_values(
        "score not a number from 0 to 1",
        rows,
        "score",
        is_probability,
        "Write the probability, not the logit or a percentage.",
    )
    far = sum(is_number(row["score"]) and not -SLIGHTLY <= row["score"] <= 1 + SLIGHTLY for _, row in rows)
    return finding and finding._replace(whole_column=far > max(1, FAR_SCORES_SHARE * len(rows)))

"""Makes unambiguous repairs to result files, and lists other readings of their rows for the user to choose from."""

from collections import defaultdict
from collections.abc import Hashable
from typing import Any, NamedTuple

from retinanet.coco.annotations import Annotations
from retinanet.coco.json_values import is_id, is_number
from retinanet.coco.result_rows import (
    KEYS,
    NUM_EXAMPLES,
    SLIGHTLY,
    NumberedRows,
    category_readings,
    complete_rows,
    has_area,
    is_box,
    is_probability,
)
from retinanet.evaluation.matches import MAX_PER_CLASS
from retinanet.submission.check import corners_in, place_in_table, sameness, sizes_by_id, with_area_in_set

NOT_FINITE = "NaN, infinite or endless numbers: rows dropped"
NO_AREA = "bbox without a positive width and height: rows dropped"
ROUNDED_SCORE = "score outside 0 to 1 by rounding: clipped"
COPY = "rows written twice: all but the first dropped"
CROWD = f"more than {MAX_PER_CLASS} detections of a class in an image: all but the best dropped"
MORE_KEYS = f"keys beyond {', '.join(KEYS)}: removed"
REPAIRS = (NOT_FINITE, NO_AREA, ROUNDED_SCORE, COPY, CROWD, MORE_KEYS)  # in the order of printing


class Change(NamedTuple):
    """A repair that was made to some rows."""

    what: str
    num_rows: int
    examples: list[str]


class Reading(NamedTuple):
    """A possible meaning of the rows."""

    name: str  # the flags that select this reading, or a description if no flag does
    rows: list[Any]


def repair(rows: list[Any]) -> tuple[list[Any], list[Change]]:
    """Returns the repaired rows and the changes that were made. Repairing the result again changes nothing.

    Rows that aren't JSON objects with all four keys are left unchanged.
    """
    done: dict[str, dict[int, str]] = {what: {} for what in REPAIRS}
    left = dict(enumerate(rows))
    first: dict[Hashable, int] = {}
    for index, row in complete_rows(rows):
        box, score = row["bbox"], row["score"]
        if any(map(_is_endless, [*box, score] if isinstance(box, list) else [box, score])):
            done[NOT_FINITE][index] = f"had bbox {box!r:.80}, score {score!r:.20}"
        elif is_box(box) and not has_area(box):
            done[NO_AREA][index] = f"had bbox {box}"
        else:
            if is_number(score) and not is_probability(score) and -SLIGHTLY <= score <= 1 + SLIGHTLY:
                left[index] = {**row, "score": 0.0 if score < 0 else 1.0}
                done[ROUNDED_SCORE][index] = f"has score {left[index]['score']}, was {score}"
            key = (sameness(row), left[index]["score"]) if is_box(box) and is_number(score) else index
            if first.setdefault(key, index) != index:
                done[COPY][index] = f"repeated row {first[key]}"
    for index in {**done[NOT_FINITE], **done[NO_AREA], **done[COPY]}:
        del left[index]
    complete = [(index, left[index]) for index, _ in complete_rows(rows) if index in left]
    for index, row in _beyond_the_best(complete):
        done[CROWD][index] = f"was in image {row['image_id']}, category {row['category_id']}, with score {row['score']}"
        del left[index]
    for index, row in complete:
        if index in left and len(row) > len(KEYS):
            done[MORE_KEYS][index] = f"also had {[key for key in row if key not in KEYS]!r:.80}"
            left[index] = {key: row[key] for key in KEYS}
    changes = [
        Change(what, len(texts), [f"row {index} {text}" for index, text in list(texts.items())[:NUM_EXAMPLES]])
        for what, texts in done.items()
        if texts
    ]
    return list(left.values()), changes


def read_as(rows: list[Any], *, corners: bool, category_offset: int) -> list[Any]:
    """Returns the rows with `category_offset` added to category ids and, if `corners`, boxes converted from corners."""
    read = list(rows)
    for index, row in complete_rows(rows) if corners or category_offset else ():
        box, category_id = row["bbox"], row["category_id"]
        if corners and is_box(box):
            x1, y1, x2, y2 = box
            box = [x1, y1, x2 - x1, y2 - y1]
        if is_id(category_id):
            category_id += category_offset
        read[index] = {**row, "bbox": box, "category_id": category_id}
    return read


def possible_readings(rows: list[Any], annotations: Annotations) -> list[Reading]:
    """Returns the rows as given, then all other possible readings: other category ids, boxes as corners, or both."""
    complete, sizes = complete_rows(rows), sizes_by_id(annotations)
    readings = [Reading("as given", rows)]
    for problem, right in category_readings(complete, annotations.category_ids):
        mapped = list(rows)
        for index, row in complete:
            if is_id(row["category_id"]):
                mapped[index] = {**row, "category_id": right[row["category_id"]]}
        offsets = {category_id - old for old, category_id in right.items()}
        name = f"--category_offset {offsets.pop()}" if len(offsets) == 1 else f"where {problem}"
        readings.append(Reading(name, mapped))
    if corners_in(with_area_in_set(complete, sizes), sizes).positions:
        for name, read in list(readings):
            both = "--boxes corners" if read is rows else f"--boxes corners {name}"
            readings.append(Reading(both, read_as(read, corners=True, category_offset=0)))
    return readings


def rows_to_evaluate(rows: list[Any], annotations: Annotations) -> list[dict[str, Any]]:
    """Returns the rows that the COCO evaluation accepts."""
    known = set(annotations.category_ids)
    placed = with_area_in_set(complete_rows(rows), sizes_by_id(annotations))
    return [
        row
        for _, row in placed
        if is_id(row["category_id"]) and row["category_id"] in known and is_number(row["score"])
    ]


def _is_endless(value: Any) -> bool:
    return type(value) in (int, float) and not is_number(value)


def _beyond_the_best(rows: NumberedRows) -> NumberedRows:
    """Returns the rows with valid boxes that rank below the MAX_PER_CLASS best of their image and category.

    If one row of a pair (image, category) has an invalid score, no row of that pair is returned. Among rows with
    equal scores, later ones rank lower.
    """
    groups = defaultdict(list)
    for index, row in rows:
        groups[place_in_table(row)].append((index, row))
    beyond = []
    for place, group in groups.items():
        if place and len(group) > MAX_PER_CLASS and all(is_probability(row["score"]) for _, row in group):
            boxed = [(index, row) for index, row in group if is_box(row["bbox"])]  # COCO can't evaluate the others
            beyond += sorted(boxed, key=lambda numbered: -numbered[1]["score"])[MAX_PER_CLASS:]
    return sorted(beyond, key=lambda numbered: numbered[0])

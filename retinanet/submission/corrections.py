"""The corrections of a result file, each made only where the rows themselves prove what was meant."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from retinanet.coco.annotations import Annotations
from retinanet.coco.json_values import is_id, is_number
from retinanet.coco.results import KEYS
from retinanet.submission.check import MAX_PER_CLASS
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

SLIGHTLY = 1e-3  # the error of a probability rounded to 16 bits
FAR_SCORES_SHARE = 0.1  # of the rows; if more scores (and more than one) are further out, they are not probabilities


class Outcome(NamedTuple):
    """The result of a correction."""

    rows: NumberedRows
    done: dict[int, tuple[Any, ...]]  # by row of the file: the values for `text`
    text: str = ""  # describes what was done to a row
    note: str = ""  # why nothing was done
    guesses: tuple[tuple[str, NumberedRows], ...] = ()  # possible meanings of the rows, where they prove none


class Correction(NamedTuple):
    """A correction, its name, and how AP decides on it."""

    what: str
    correct: Callable[[NumberedRows, Annotations], Outcome]
    can_change_ap: bool = True
    only_by_ap: str = ""  # if only AP can show that it is right: why the rows can't


def drop_not_finite(rows: NumberedRows, _: Annotations) -> Outcome:
    def endless(value: Any) -> bool:
        return type(value) in (int, float) and not is_number(value)

    odd = [(i, row["bbox"], row["score"]) for i, row in rows if not (is_box(row["bbox"]) and is_number(row["score"]))]
    bad = {
        index: (box, score)
        for index, box, score in odd
        if any(map(endless, [*box, score] if isinstance(box, list) else [box, score]))
    }
    return _without(rows, bad, "had bbox {!r:.80}, score {!r:.20}")


def convert_corners(rows: NumberedRows, annotations: Annotations) -> Outcome:
    sizes = sizes_by_id(annotations)
    boxed = [(index, row) for index, row in rows if is_box(row["bbox"])]
    positions, proved = corners_in(with_area_in_set(boxed, sizes), sizes)
    if not positions:
        return Outcome(rows, {})
    corners = {index: row["bbox"] for index, row in boxed}
    outcome = _with(rows, "bbox", {i: [x1, y1, x2 - x1, y2 - y1] for i, (x1, y1, x2, y2) in corners.items()})
    if proved:
        return outcome
    note = (
        f"bbox written as (x1, y1, x2, y2)? {len(positions)} of {len(rows)} boxes extend past their images, but so do "
        "boxes that were not clipped."
    )
    return Outcome(rows, {}, note=note, guesses=(("boxes read as (x1, y1, x2, y2)", outcome.rows),))


def drop_without_area(rows: NumberedRows, _: Annotations) -> Outcome:
    boxed = {index: row["bbox"] for index, row in rows if is_box(row["bbox"])}
    return _without(rows, {i: (box,) for i, box in boxed.items() if not (box[2] > 0 and box[3] > 0)}, "had bbox {}")


def map_categories(rows: NumberedRows, annotations: Annotations) -> Outcome:
    known = annotations.category_ids
    outcomes = {
        problem: _with(
            rows, "category_id", {i: right[row["category_id"]] for i, row in rows if is_id(row["category_id"])}
        )
        for problem, right in category_readings(rows, known)
    }
    if not outcomes:
        return Outcome(rows, {})
    names = ", or ".join(outcomes)
    if not cannot_be_as_written(rows, known):
        unknown = sum(is_id(row["category_id"]) and row["category_id"] not in known for _, row in rows)
        note = (
            f"{names}? {unknown} of {len(rows)} rows have an id that is not in the set, which proves nothing about the "
            "others."
        )
    elif len(outcomes) > 1:
        note = f"{names}: the rows fit both, so you must decide."
    else:
        return outcomes[names]
    return Outcome(rows, {}, note=note, guesses=tuple((problem, outcome.rows) for problem, outcome in outcomes.items()))


def clip_scores(rows: NumberedRows, _: Annotations) -> Outcome:
    outside = {i: row["score"] for i, row in rows if is_number(row["score"]) and not is_probability(row["score"])}
    far = [score for score in outside.values() if not -SLIGHTLY <= score <= 1 + SLIGHTLY]
    if len(far) > max(1, FAR_SCORES_SHARE * len(rows)):
        note = f"{len(far)} of {len(rows)} scores are outside 0 to 1: logits or percentages. Clipping would tie them."
        return Outcome(rows, {}, note=note)
    return _with(rows, "score", {index: 0.0 if score < 0 else 1.0 for index, score in outside.items()})


def drop_copies(rows: NumberedRows, _: Annotations) -> Outcome:
    """Two detections never agree in many digits, so such a row was written twice. Round numbers can agree by chance."""
    dropped = {}
    for group in _crowds(rows, sameness, 1):
        first: dict[float, int] = {}
        for index, row in group:
            box, score = row["bbox"], row["score"]
            if not isinstance(box, list) or not any(map(_has_many_digits, box)) or not _has_many_digits(score):
                continue
            if first.setdefault(score, index) != index:
                dropped[index] = (first[score],)
    return _without(rows, dropped, "repeated row {}")


def _has_many_digits(value: Any) -> bool:
    return is_number(value) and value != round(value, 3)


def drop_duplicates(rows: NumberedRows, _: Annotations) -> Outcome:
    dropped: dict[int, tuple[Any, ...]] = {}
    for group in _crowds(rows, sameness, 1):
        best, *others = _ranked(group)
        dropped |= {index: (best[0],) for index, _ in others}
    return _without(rows, dropped, "repeated row {}")


def drop_crowd(rows: NumberedRows, _: Annotations) -> Outcome:
    dropped: dict[int, tuple[Any, ...]] = {}
    for group in _crowds(rows, place_in_table, MAX_PER_CLASS):
        boxed = [(index, row) for index, row in group if is_box(row["bbox"])]  # COCO can't evaluate the others
        for index, row in _ranked(boxed)[MAX_PER_CLASS:]:
            dropped[index] = (row["image_id"], row["category_id"], row["score"])
    return _without(rows, dropped, "was of image {}, category {}, with score {}")


def drop_keys(rows: NumberedRows, _: Annotations) -> Outcome:
    more = {i: ([key for key in row if key not in KEYS],) for i, row in rows if len(row) > len(KEYS)}
    kept = [(i, {key: row[key] for key in KEYS} if i in more else row) for i, row in rows]
    return Outcome(kept, more, "had also {!r:.80}")


# The order matters: only boxes of the right form show whether they have an area; rows that are dropped in any case must
# not decide how category ids and scores are read; duplicates are found once all else is right, and crowds among the
# rest, by their final scores.
CORRECTIONS = (
    Correction("NaN, infinite or endless numbers: rows dropped", drop_not_finite, can_change_ap=False),
    Correction("bbox written as (x1, y1, x2, y2): now (left, top, width, height)", convert_corners),
    Correction("bbox without a positive width and height: rows dropped", drop_without_area, can_change_ap=False),
    Correction("category_id off by one, or counting the classes: now the set's ids", map_categories),
    Correction("score slightly or rarely outside 0 to 1: clipped", clip_scores),
    Correction("rows written twice: all but the first dropped", drop_copies),
    Correction(
        "duplicates: all but the best score dropped",
        drop_duplicates,
        only_by_ap="one box may be right for two objects in the same place",
    ),
    Correction(
        f"more than {MAX_PER_CLASS} detections of a class in an image: all but the best dropped",
        drop_crowd,
        can_change_ap=False,  # not by a digit: COCO's evaluation ranks the same way and keeps the same rows
    ),
    Correction(f"keys beyond {', '.join(KEYS)}: removed", drop_keys, can_change_ap=False),
)
WHOLE_COLUMNS = [what for what, correct, *_ in CORRECTIONS if correct in (convert_corners, map_categories)]


def _without(rows: NumberedRows, dropped: dict[int, tuple[Any, ...]], text: str) -> Outcome:
    return Outcome([(index, row) for index, row in rows if index not in dropped], dropped, text)


def _with(rows: NumberedRows, key: str, values: dict[int, Any]) -> Outcome:
    changed = {i: (key, values[i], row[key]) for i, row in rows if i in values and values[i] != row[key]}
    kept = [(i, {**row, key: values[i]} if i in changed else row) for i, row in rows]
    return Outcome(kept, changed, "has {} {}, was {}")


def _crowds(rows: NumberedRows, key: Callable[[dict[str, Any]], Hashable], most: int) -> list[NumberedRows]:
    """The groups of more than `most` rows with the same key whose scores can all be ranked.

    Rows whose key is None are in no group.
    """
    keys = [key(row) for _, row in rows]
    counts = Counter(keys)
    groups = defaultdict(list)
    for numbered, name in zip(rows, keys, strict=True):
        if counts[name] > most and name is not None:
            groups[name].append(numbered)
    return [group for group in groups.values() if all(is_probability(row["score"]) for _, row in group)]


def _ranked(rows: NumberedRows) -> NumberedRows:
    """The best score first; equal scores in the order of the file."""
    return sorted(rows, key=lambda numbered: -numbered[1]["score"])

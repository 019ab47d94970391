"""Result files corrected, as far as the rows themselves prove what was meant."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from retinanet.annotation_entries import is_id, is_number
from retinanet.annotations import Annotations
from retinanet.results import KEYS, NumberedRows, is_box, is_probability, sameness
from retinanet.results_check import FEW, MAX_PER_IMAGE
from retinanet.results_guesses import category_readings, sizes_by_id, with_area_in_set, written_as_corners

SLIGHTLY = 1e-3  # what rounding to 16 bits makes of a probability
FAR_SHARE = 0.1  # of the rows: where more scores (and more than one) are further out, they are no probabilities


class Change(NamedTuple):
    """One kind of correction."""

    what: str
    num_rows: int
    examples: list[str]


class Fixed(NamedTuple):
    """The corrected rows, what was changed in them, and why something was not."""

    rows: list[Any]
    changes: list[Change]
    notes: list[str]


class _Step(NamedTuple):
    """What a correction leaves: the rows; by place in the file what fills the text about it; why it did nothing."""

    rows: NumberedRows
    done: dict[int, tuple[Any, ...]]
    text: str = ""
    note: str = ""


def fix_results(rows: list[Any], annotations: Annotations) -> Fixed:
    """Correct `rows`, which stay as they are, for the set of `annotations`. What is corrected has nothing to correct.

    What is no object with all keys is passed on as it is.
    """
    fixed = _corrected(rows, annotations)
    if rows and not fixed.rows:
        return Fixed(rows, [], ["Nothing is changed: no row would be left. Look for what wrote them."])
    # Some corrections go by shares of the rows, which dropping others shifts.
    if fixed.changes and _corrected(fixed.rows, annotations).changes:
        return Fixed(rows, [], ["Nothing is changed: once corrected, the file would look wrong in another way."])
    return fixed


def _corrected(rows: list[Any], annotations: Annotations) -> Fixed:
    complete = [isinstance(row, dict) and all(key in row for key in KEYS) for row in rows]
    lacking = [(index, row) for index, row in enumerate(rows) if not complete[index]]
    kept = [(index, row) for index, row in enumerate(rows) if complete[index]]
    changes, notes = [], []
    for what, correct in CORRECTIONS:
        kept, done, text, note = correct(kept, annotations)
        if done:
            examples = [f"row {index} {text.format(*values)}" for index, values in list(done.items())[:FEW]]
            changes.append(Change(what, len(done), examples))
        if note:
            notes.append(note)
    return Fixed([row for _, row in sorted(kept + lacking, key=lambda numbered: numbered[0])], changes, notes)


def _drop_not_finite(rows: NumberedRows, _: Annotations) -> _Step:
    def endless(value: Any) -> bool:
        return type(value) in (int, float) and not is_number(value)

    odd = [(i, row["bbox"], row["score"]) for i, row in rows if not (is_box(row["bbox"]) and is_number(row["score"]))]
    bad = {
        index: (box, score)
        for index, box, score in odd
        if any(map(endless, [*box, score] if isinstance(box, list) else [box, score]))
    }
    return _without(rows, bad, "had bbox {!r:.80}, score {!r:.20}")


def _convert_corners(rows: NumberedRows, annotations: Annotations) -> _Step:
    sizes = sizes_by_id(annotations)
    boxed = [(index, row) for index, row in rows if is_box(row["bbox"])]
    if not written_as_corners(with_area_in_set(boxed, sizes), sizes):
        return _Step(rows, {})
    corners = {index: row["bbox"] for index, row in boxed}
    return _with(rows, "bbox", {i: [x1, y1, x2 - x1, y2 - y1] for i, (x1, y1, x2, y2) in corners.items()})


def _drop_without_area(rows: NumberedRows, _: Annotations) -> _Step:
    boxed = {index: row["bbox"] for index, row in rows if is_box(row["bbox"])}
    return _without(rows, {i: (box,) for i, box in boxed.items() if not (box[2] > 0 and box[3] > 0)}, "had bbox {}")


def _map_categories(rows: NumberedRows, annotations: Annotations) -> _Step:
    readings = category_readings(rows, annotations.category_ids)
    if not readings:
        return _Step(rows, {})
    (problem, right), *others = readings
    for other, differs in others:
        if differs != right:
            return _Step(rows, {}, note=f"{problem}, or {other}: the rows fit both, so only you can tell.")
    return _with(rows, "category_id", {i: right[row["category_id"]] for i, row in rows if is_id(row["category_id"])})


def _clip_scores(rows: NumberedRows, _: Annotations) -> _Step:
    outside = {i: row["score"] for i, row in rows if is_number(row["score"]) and not is_probability(row["score"])}
    far = [score for score in outside.values() if not -SLIGHTLY <= score <= 1 + SLIGHTLY]
    if len(far) > max(1, FAR_SHARE * len(rows)):
        note = f"{len(far)} of {len(rows)} scores are out of 0 to 1: logits or per cent, whose order clipping destroys."
        return _Step(rows, {}, note=note)
    return _with(rows, "score", {index: 0.0 if score < 0 else 1.0 for index, score in outside.items()})


def _drop_duplicates(rows: NumberedRows, _: Annotations) -> _Step:
    dropped: dict[int, tuple[Any, ...]] = {}
    for group in _crowds(rows, sameness, 1):
        best, *others = _ranked(group)
        dropped |= {index: (best[0],) for index, _ in others}
    return _without(rows, dropped, "repeated row {}")


def _drop_crowd(rows: NumberedRows, _: Annotations) -> _Step:
    dropped: dict[int, tuple[Any, ...]] = {}
    for group in _crowds(rows, lambda row: str(row["image_id"]), MAX_PER_IMAGE):
        dropped |= {i: (row["image_id"], row["score"]) for i, row in _ranked(group)[MAX_PER_IMAGE:]}
    return _without(rows, dropped, "was of image {!r:.20} with score {}")


def _drop_keys(rows: NumberedRows, _: Annotations) -> _Step:
    more = {i: ([key for key in row if key not in KEYS],) for i, row in rows if len(row) > len(KEYS)}
    kept = [(i, {key: row[key] for key in KEYS} if i in more else row) for i, row in rows]
    return _Step(kept, more, "had also {!r:.80}")


# In this order: only boxes of the right form show whether they have an area; rows that go in any case have no say in
# what the category ids and the scores are taken for; duplicates are found when all else is right, and crowds among
# what is left of them, by scores as they will be read.
CORRECTIONS: tuple[tuple[str, Callable[[NumberedRows, Annotations], _Step]], ...] = (
    ("NaN, infinite or endless numbers: rows dropped", _drop_not_finite),
    ("bbox written as (x1, y1, x2, y2): now (left, top, width, height)", _convert_corners),
    ("bbox without a positive width and height: rows dropped", _drop_without_area),
    ("category_id off by one, or counting the classes: now the set's", _map_categories),
    ("score a little or rarely out of 0 to 1: clipped", _clip_scores),
    ("duplicates: dropped but for the best score", _drop_duplicates),
    (f"more than {MAX_PER_IMAGE} detections in an image: dropped but for the best", _drop_crowd),
    (f"keys beyond {', '.join(KEYS)}: left out", _drop_keys),
)


def _without(rows: NumberedRows, dropped: dict[int, tuple[Any, ...]], text: str) -> _Step:
    return _Step([(index, row) for index, row in rows if index not in dropped], dropped, text)


def _with(rows: NumberedRows, key: str, values: dict[int, Any]) -> _Step:
    changed = {i: (key, values[i], row[key]) for i, row in rows if i in values and values[i] != row[key]}
    kept = [(i, {**row, key: values[i]} if i in changed else row) for i, row in rows]
    return _Step(kept, changed, "has {} {}, was {}")


def _crowds(rows: NumberedRows, key: Callable[[dict[str, Any]], Hashable], most: int) -> list[NumberedRows]:
    """The rows by what is alike in them, where these are more than `most` and all can be ranked by their scores."""
    keys = [key(row) for _, row in rows]
    counts = Counter(keys)
    groups = defaultdict(list)
    for numbered, name in zip(rows, keys, strict=True):
        if counts[name] > most:
            groups[name].append(numbered)
    return [group for group in groups.values() if all(is_probability(row["score"]) for _, row in group)]


def _ranked(rows: NumberedRows) -> NumberedRows:
    """Best score first; of equal ones, the first in the file."""
    return sorted(rows, key=lambda numbered: -numbered[1]["score"])

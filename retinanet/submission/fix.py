"""Corrects result files as far as the rows prove what was meant, and never so that AP falls."""

from collections.abc import Callable
from typing import Any, NamedTuple

from retinanet.coco.annotations import Annotations
from retinanet.coco.json_values import is_id, is_number
from retinanet.coco.results import KEYS
from retinanet.submission.check import NUM_EXAMPLES
from retinanet.submission.corrections import CORRECTIONS, WHOLE_COLUMNS, Correction, Outcome
from retinanet.submission.rows import NumberedRows, is_box, sizes_by_id, with_area_in_set

Measure = Callable[[list[dict[str, Any]]], float]  # AP of rows that can be evaluated


class Change(NamedTuple):
    """A correction that was made."""

    what: str
    num_rows: int
    examples: list[str]
    ap: tuple[float, float] | None = None  # before and after; None without objects to compare with


class Fixed(NamedTuple):
    """The corrected rows, what was changed in them, and why other changes were not made."""

    rows: list[Any]
    changes: list[Change]
    notes: list[str]


def fix_results(rows: list[Any], annotations: Annotations, average_precision: Measure | None = None) -> Fixed:
    """Correct a copy of `rows` for the set of `annotations`. Correcting the result again changes nothing.

    Entries that are not objects with all keys are kept unchanged. With `average_precision`, which is None if the set
    has no objects to compare with, no correction is made that lowers it.
    """
    fixed = _corrected_at_best(rows, annotations, average_precision)
    if rows and not fixed.rows:
        return Fixed(rows, [], ["Nothing is changed: no row would be left. Check the program that wrote the file."])
    # Some corrections depend on shares of the rows, which dropping rows shifts.
    if fixed.changes and _corrected_at_best(fixed.rows, annotations, average_precision).changes:
        return Fixed(rows, [], ["Nothing is changed: the corrected file would look wrong in another way."])
    return fixed


def rows_to_evaluate(rows: NumberedRows, annotations: Annotations) -> list[dict[str, Any]]:
    """The rows that COCO's evaluation accepts, of `rows` with all keys."""
    known = set(annotations.category_ids)
    named = [(i, row) for i, row in rows if is_id(row["category_id"]) and row["category_id"] in known]
    boxed = [(i, row) for i, row in named if is_number(row["score"]) and is_box(row["bbox"])]
    return [row for _, row in with_area_in_set(boxed, sizes_by_id(annotations))]


def _corrected_at_best(rows: list[Any], annotations: Annotations, average_precision: Measure | None) -> Fixed:
    """If several columns are wrong, AP says little until the last is right: judge them together first."""
    fixed = _corrected(rows, annotations, average_precision, together=True)
    aps = [change.ap for change in fixed.changes if change.ap and change.what in WHOLE_COLUMNS]
    if aps and aps[-1][1] < aps[0][0]:
        return _corrected(rows, annotations, average_precision, together=False)
    return fixed


def _corrected(rows: list[Any], annotations: Annotations, average_precision: Measure | None, together: bool) -> Fixed:
    complete = [isinstance(row, dict) and all(key in row for key in KEYS) for row in rows]
    lacking = [(index, row) for index, row in enumerate(rows) if not complete[index]]
    kept = [(index, row) for index, row in enumerate(rows) if complete[index]]

    def ap_of(some: NumberedRows) -> float | None:
        return average_precision(rows_to_evaluate(some, annotations)) if average_precision else None

    changes: list[Change] = []
    notes: list[str] = []
    ap: float | None = None  # of the kept rows, once it is needed
    for correction in CORRECTIONS:
        outcome = correction.correct(kept, annotations)
        ap = ap_of(kept) if ap is None and (outcome.done or outcome.guesses) else ap
        if outcome.note:
            notes.append(outcome.note + _guessed(outcome, ap, ap_of))
        if not outcome.done:
            continue
        after = ap_of(outcome.rows) if correction.can_change_ap else ap
        reason = _reason_against(correction, ap, after)
        if reason and not (together and correction.what in WHOLE_COLUMNS):
            notes.append(f"{correction.what}: not these {len(outcome.done)} rows, since {reason}.")
            continue
        shown = list(outcome.done.items())[:NUM_EXAMPLES]
        examples = [f"row {index} {outcome.text.format(*values)}" for index, values in shown]
        changes.append(Change(correction.what, len(outcome.done), examples, _pair(ap, after)))
        kept, ap = outcome.rows, after
    return Fixed([row for _, row in sorted(kept + lacking, key=lambda numbered: numbered[0])], changes, notes)


def _reason_against(correction: Correction, before: float | None, after: float | None) -> str:
    """Why a correction with this AP before and after it is not made; empty if it is."""
    if before is None or after is None:
        return correction.only_by_ap
    return f"AP would fall from {before:.5f} to {after:.5f}" if after < before else ""


def _guessed(outcome: Outcome, ap: float | None, ap_of: Callable[[NumberedRows], float | None]) -> str:
    """AP with each of the guesses."""
    if ap is None:
        return ""
    return "".join(f" AP is {ap:.3f}; with {guess} it would be {ap_of(rows):.3f}." for guess, rows in outcome.guesses)


def _pair(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (before, after)

"""Formats an analysis as lines to print."""

import math
from collections.abc import Sequence

import numpy as np

from retinanet.coco.score_thresholds import threshold_text
from retinanet.evaluation.analysis import USEFUL_F1, Analysis, ClassNumbers, WorkingPoint
from retinanet.evaluation.coco_table import CocoTable
from retinanet.evaluation.compare import Comparison
from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.tide_errors import ERROR_KINDS
from retinanet.reports.tables import aligned
from retinanet.runtime.printable import counted, printable

MOST_CLASSES_IN_TEXT = 10  # with more, the confusion matrix would not fit on a screen
MOST_CONFUSIONS = 5
INTERVAL_WIDTH = 22  # the width of "0.123 (0.123 to 0.123)"; the column has the same width without intervals


def analysis_lines(analysis: Analysis, num_images: int) -> list[str]:
    """Returns the lines that are printed after the COCO table."""
    num_draws = analysis.drawn.shape[2]
    sure = (
        f"; 95% intervals in brackets, from {num_draws} bootstrap draws of the {counted(num_images, 'image')}"
        if num_draws
        else ""
    )
    header = ["Class", "Objects", f"{'AP':>{INTERVAL_WIDTH}}", f"{'AP50':>{INTERVAL_WIDTH}}", f"{'AR':>5}"]
    return [
        f"AP {analysis.ap}, AP50 {analysis.ap50}{sure}",
        *aligned([[*header, "Best F1", "Above score"], *map(_class_row, analysis.classes)]),
        *never_found_lines(analysis.classes),
        "AP50 lost to each kind of error: "
        + ", ".join(f"{kind} {lost:.3f}" for kind, lost in zip(ERROR_KINDS, analysis.lost, strict=True)),
        *_lost_lines(analysis.classes),
        _best_line(analysis.best),
        *_confusion_lines(analysis),
    ]


def without_lookalikes_line(ap: float, ap50: float, num_images: int, set_name: str) -> str:
    """Returns the line with AP and AP50 on the images that don't look like images of the training set `set_name`."""
    return (
        f"AP {number_text(ap)}, AP50 {number_text(ap50)} without {counted(num_images, 'image')} that check_data found "
        f"to look like images in {set_name}"
    )


def never_found_lines(classes: Sequence[ClassNumbers]) -> list[str]:
    """Returns a line that names the classes never found at any useful score, or no line if there are none."""
    never = [
        f"{printable(numbers.name)} ({counted(numbers.num_objects, 'object')})"
        for numbers in classes
        if numbers.is_never_found
    ]
    if not never:
        return []
    rest = f" and {len(never) - MOST_CLASSES_IN_TEXT} more" if len(never) > MOST_CLASSES_IN_TEXT else ""
    return [
        f"Never found at any useful score (no hit above the threshold of the best F1, F1 below {USEFUL_F1:g} at all "
        f"others): {', '.join(never[:MOST_CLASSES_IN_TEXT])}{rest}"
    ]


def lost_cells(numbers: ClassNumbers) -> list[str]:
    """Returns 1 - AP50 of the class, then the AP50 that the class loses to each error type, as text."""
    return [number_text(number) for number in (1 - numbers.ap50.value, *numbers.lost)]


def _lost_lines(classes: Sequence[ClassNumbers]) -> list[str]:
    """Returns a table of the AP50 that each class loses to each error type; no lines if there are many classes."""
    if len(classes) > MOST_CLASSES_IN_TEXT:
        return []
    rows = [[printable(numbers.name), *lost_cells(numbers)] for numbers in classes]
    return aligned([["AP50 lost by class", "1 - AP50", *ERROR_KINDS], *rows])


def precision_at_50(table: CocoTable) -> np.ndarray:
    """Returns the precision [101 recalls, C] at IoU 0.5, for all areas and 100 detections per image."""
    return table.precision[0, :, :, 0, 2]


def number_text(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.3f}"


def change_text(difference: Interval) -> str:
    """Returns a difference and its interval, with signs."""
    if math.isnan(difference.value):
        return "-"
    sure = "" if math.isnan(difference.low) else f" ({difference.low:+.3f} to {difference.high:+.3f})"
    return f"{difference.value:+.3f}{sure}"


def _class_row(numbers: ClassNumbers) -> list[str]:
    best = number_text(numbers.best.f1), threshold_text(numbers.best.threshold)
    intervals = str(numbers.ap), str(numbers.ap50)
    return [printable(numbers.name), str(numbers.num_objects), *intervals, number_text(numbers.ar), *best]


def _best_line(best: WorkingPoint) -> str:
    if math.isnan(best.threshold):
        return "Best F1 of all classes: none, as no detection hits an object"
    return (
        f"Best F1 of all classes: {best.f1:.3f} above score {threshold_text(best.threshold)}, with precision "
        f"{best.precision:.3f} and recall {best.recall:.3f}"
    )


def _confusion_lines(analysis: Analysis) -> list[str]:
    """Returns the confusion matrix or, with many classes, the most frequent confusions."""
    names = [printable(numbers.name) for numbers in analysis.classes]
    if len(names) > MOST_CLASSES_IN_TEXT:
        return [f"Most confused at that score: {'; '.join(_top_confusions(analysis)) or 'none'}"]
    header = ["", *(f"{name:>5}" for name in names), "not found"]
    counts = [map(str, row) for row in analysis.confusion.table().tolist()]
    rows = [[name, *row] for name, row in zip([*names, "background"], counts, strict=True)]
    return ["What the true classes (rows) were taken for at that score (columns):", *aligned([header, *rows])]


def _top_confusions(analysis: Analysis) -> list[str]:
    """Returns the most frequent confusions between classes."""
    between = analysis.confusion.between_classes()
    order = np.argsort(-between.counts, kind="stable")[:MOST_CONFUSIONS]
    return [
        f"{printable(analysis.classes[true].name)} taken for {printable(analysis.classes[found].name)} ({count})"
        for true, found, count in zip(between.true[order], between.found[order], between.counts[order], strict=True)
    ]


def comparison_lines(comparison: Comparison, num_draws: int, num_images: int) -> list[str]:
    """Returns the lines to print for a comparison."""
    rows = [["", f"{'A':>5}", f"{'B':>5}", f"{'B - A':>25}", "B higher in"]]
    for number in comparison.differences:
        change = change_text(number.difference)
        wins = "-" if np.isnan(number.wins) else f"{number.wins:.1%}"
        rows.append([printable(number.name), number_text(number.a), number_text(number.b), change, wins])
    lines = aligned(rows)
    shifts = ", ".join(f"{kind} {more:+.3f}" for kind, more in zip(ERROR_KINDS, comparison.lost_more, strict=True))
    if num_draws:
        lines += [
            f"95% intervals in brackets, from {num_draws} bootstrap draws of the {counted(num_images, 'image')}, the "
            "same for both",
            "The intervals cover other images of this kind, not other seeds: before you credit a setting, train both "
            "with the same --seeds and everything else equal",
        ]
    return [*lines, f"AP50 that B loses to each kind of error, less what A loses: {shifts}"]

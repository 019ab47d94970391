"""Draws the charts of a report: AP by class, precision and recall, the confusion matrix, and the cost of errors."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from retinanet.coco.score_thresholds import threshold_text
from retinanet.evaluation.analysis import ClassNumbers
from retinanet.evaluation.confusion import Confusion
from retinanet.evaluation.intervals import Interval
from retinanet.reports.labels import PALETTE, shortened, text_colour

MOST_BARS = 30  # classes in the bar chart
MOST_CURVES = 1000  # classes; more curves would hide each other
NAME_POINTS = 9
MOST_FIELDS = 25  # classes in the confusion matrix; if there are more, only the most confused are drawn
MOST_COLOURED_CURVES = 10  # with more classes, only the best and the worst are coloured
LINE_STYLES = ("solid", "dashed", "dotted", "dashdot")
BAR_INCHES = 0.28  # height of a bar with its name
WHISKERS: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 1.2, "capsize": 2.5}


def class_chart(classes: Sequence[ClassNumbers]) -> Figure:
    """Draws AP and AP50 by class with intervals, the best on top; with many classes, only the best and the worst."""
    known = sorted(
        (numbers for numbers in classes if not np.isnan(numbers.ap.value)), key=lambda numbers: numbers.ap.value
    )
    num_known = len(known)
    if num_known > MOST_BARS:
        known = [*known[: MOST_BARS // 2], *known[-MOST_BARS // 2 :]]
    figure = Figure(figsize=(7, 1.3 + 2 * BAR_INCHES * len(known)), layout="constrained")
    axis = figure.subplots()
    for shift, colour, label, values in (
        (0.2, PALETTE[0], "AP", [numbers.ap for numbers in known]),
        (-0.2, PALETTE[1], "AP50", [numbers.ap50 for numbers in known]),
    ):
        places = np.arange(len(known)) + shift
        axis.barh(places, [number.value for number in values], height=0.38, color=colour, label=label)
        is_sure = np.array([np.isfinite([number.low, number.high]).all() for number in values], bool)
        with_interval = [number for number, sure in zip(values, is_sure, strict=True) if sure]
        middles = [number.value for number in with_interval]
        axis.errorbar(middles, places[is_sure], xerr=_error_bars(with_interval), **WHISKERS)
    axis.set_yticks(
        range(len(known)), [f"{shortened(numbers.name)} ({numbers.num_objects})" for numbers in known], parse_math=False
    )
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, len(known) - 0.4)
    axis.set_xlabel("with 95% intervals where known; after each name, its number of objects")
    if num_known > MOST_BARS:
        axis.set_title(f"The best and the worst {MOST_BARS // 2} of {num_known} classes")
    axis.grid(axis="x", alpha=0.4)
    axis.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def precision_recall_chart(recalls: np.ndarray, precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws precision-recall curves by class at IoU 0.5; `precision` [101, C] is -1 for a class without objects."""
    known = [label for label in range(len(names)) if precision[0, label] >= 0]
    by_ap = sorted(known, key=lambda label: -precision[:, label].mean())
    named = by_ap if len(by_ap) <= MOST_COLOURED_CURVES else [*by_ap[:4], *by_ap[-4:]]
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axis = figure.subplots()
    for label in set(by_ap[:: max(1, len(by_ap) // MOST_CURVES)]) - set(named):
        axis.plot(recalls, precision[:, label], color="#cccccc", linewidth=0.8)
    for row, label in enumerate(named):
        style: dict[str, Any] = {"color": PALETTE[row % len(PALETTE)], "linestyle": LINE_STYLES[row % len(LINE_STYLES)]}
        name = f"{shortened(names[label])} {precision[:, label].mean():.3f}"
        axis.plot(recalls, precision[:, label], label=name, linewidth=1.8, **style)
    if len(known) > 1:
        mean = precision[:, known].mean(axis=1)
        axis.plot(recalls, mean, color="black", linewidth=2.6, label=f"mean {mean.mean():.3f}")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="At IoU 0.5")
    axis.grid(alpha=0.4)
    title = "AP50" if len(named) == len(known) else f"AP50, best and worst of {len(known)}"
    legend = figure.legend(loc="outside right upper", title=title)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def confusion_chart(confusion: Confusion, names: Sequence[str], threshold: float) -> Figure:
    """Draws the confusion matrix, with a row per true class; the last row shows detections on background."""
    classes = _classes_to_draw(confusion)
    names, size = [shortened(names[label]) for label in classes.tolist()], len(classes) + 1
    table = confusion.table(classes)
    totals = np.bincount(confusion.true, confusion.counts, minlength=confusion.num_classes + 1)
    shares = table / np.maximum(totals[[*classes, confusion.num_classes]], 1)[:, None]
    side = 3.2 + 0.4 * size
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(size), [*names, "not found"], rotation=90, fontsize=NAME_POINTS, parse_math=False)
    axis.set_yticks(range(size), [*names, "background"], fontsize=NAME_POINTS, parse_math=False)
    axis.set_xlabel("found")
    axis.set_ylabel("true")
    at_threshold = f"Detections above score {threshold_text(threshold)}, IoU 0.5"
    title = "No detection hits an object" if np.isnan(threshold) else at_threshold
    some = f"\nThe {len(classes)} of {confusion.num_classes} classes most confused with others"
    axis.set_title(title + some * (len(classes) < confusion.num_classes))
    figure.colorbar(image, ax=axis, shrink=0.7, label="fraction of the row")
    for row, column in np.argwhere(table > 0):
        colour = text_colour(mpl.colors.to_hex(image.cmap(shares[row, column])))
        axis.text(column, row, str(table[row, column]), ha="center", va="center", color=colour, fontsize=NAME_POINTS)
    return figure


def _classes_to_draw(confusion: Confusion) -> np.ndarray:
    """Returns the labels of the classes to draw, ascending: all or, if there are too many, the most confused ones."""
    if confusion.num_classes <= MOST_FIELDS:
        return np.arange(confusion.num_classes)
    between = confusion.between_classes()
    both = np.concatenate([between.true, between.found])
    times = np.bincount(both, np.tile(between.counts, 2), minlength=confusion.num_classes)
    return np.sort(np.argsort(-times, kind="stable")[:MOST_FIELDS])


def error_chart(lost: np.ndarray, kinds: Sequence[str], num_never_found: int = 0) -> Figure:
    """Draws the AP50 that each error type costs; the title gives the number of classes never found, if any."""
    figure = Figure(figsize=(7, 1.2 + BAR_INCHES * len(kinds)), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(range(len(kinds)), lost, color=PALETTE[0], height=0.7)
    axis.bar_label(bars, fmt="%.3f", padding=3)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel("AP50 gained by fixing only these errors")
    if num_never_found:
        axis.set_title(f"Classes never found at any useful score: {num_never_found}")
    axis.grid(axis="x", alpha=0.4)
    axis.set_axisbelow(True)
    return figure


def _error_bars(values: Sequence[Interval]) -> np.ndarray:
    """Returns how far the intervals extend below and above their values: [2, N]."""
    extents = [(number.value - number.low, number.high - number.value) for number in values]
    return np.array(extents).reshape(-1, 2).T.clip(min=0)

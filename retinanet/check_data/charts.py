"""Draws charts of a dataset and of how well the anchors cover its objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from retinanet.check_data.counts import BY_CLASS, BY_SIDE, Counts, Histogram, Reach, histograms
from retinanet.check_data.text import REACHED
from retinanet.reports.figures import save_figure
from retinanet.reports.labels import PALETTE, shortened

FEWEST_BINS = 5  # a histogram always has room for this many bins
MOST_CLASSES = 100  # if there are more, the scarcest classes of the first set are drawn
FIGURE_WIDTH, CHART_INCHES, CLASS_INCHES = 11.0, 2.9, 0.17
# For black-and-white prints and colour-blind readers, sets also differ in hatching and marker, and the fractions of a
# Reach in hatching and lightness.
SET_COLOURS, HATCHES, SET_MARKERS = (PALETTE[0], PALETTE[1], PALETTE[3]), ("", "///", "..."), ("o", "s", "^")
REACH_COLOURS, REACH_HATCHES = (PALETTE[4], PALETTE[1], PALETTE[2]), ("", "///", "xx")


def draw(sets: Sequence[Counts], classes: dict[int, str], groups: dict[str, list[Reach]], path: Path) -> None:
    """Draws the charts of the `sets` and writes them to `path` atomically. Raises UserError if writing fails."""
    classes = {key: shortened(name) for key, name in classes.items()}
    shown = sorted(classes, key=lambda key: sets[0].class_objects.get(key, 0))[:MOST_CLASSES]
    class_height = CLASS_INCHES * len(shown) + 1.3
    figure = Figure(figsize=(FIGURE_WIDTH, 2 * CHART_INCHES + class_height), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[2 * CHART_INCHES, class_height])
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = upper.subplots(2, 2).flatten()
    for axis, histogram in zip(axes, histograms(list(sets)), strict=False):
        _draw_histogram(axis, histogram)
    axes[0].margins(y=0.2)  # room for the legend
    axes[0].legend(fontsize=8, frameon=False, loc="upper center", ncols=3)
    _draw_reach(axes[3], groups[BY_SIDE])
    axes[3].set_title(f"Best anchor of the objects of {sets[0].name}, by side after the resize", fontsize=9)
    left, right = lower.subplots(1, 2, sharey=True)
    _draw_classes(left, sets, {key: classes[key] for key in shown})
    if len(shown) < len(classes):
        left.set_title(f"Objects of the {len(shown)} scarcest of {len(classes)} classes", fontsize=9)
    by_name = dict(zip(sets[0].class_objects, groups[BY_CLASS], strict=True))
    _draw_reach(right, [by_name.get(key, Reach("", 0, [0.0, 0.0, 0.0])) for key in shown])
    right.set_title(f"Best anchor of the objects of {sets[0].name}, by class", fontsize=9)
    save_figure(figure, path)


def _draw_histogram(axis: Axes, histogram: Histogram) -> None:
    """Draws percentages, with the sets side by side, so that sets of different sizes can be compared."""
    places, width = np.arange(len(histogram.names)), 0.8 / len(histogram.counts)
    for number, (name, counts) in enumerate(histogram.counts.items()):
        axis.bar(
            places + (number - (len(histogram.counts) - 1) / 2) * width,
            100 * counts / max(1, counts.sum()),
            width,
            label=f"{name} ({counts.sum()})",
            color=SET_COLOURS[number % 3],
            hatch=HATCHES[number % 3],
            edgecolor="white",
            linewidth=0.5,
        )
    axis.set_xticks(
        places, histogram.names, fontsize=7, rotation=30, horizontalalignment="right", rotation_mode="anchor"
    )
    spare = max(0, FEWEST_BINS - len(places)) / 2  # otherwise a single bar would fill the chart
    axis.set_xlim(-0.6 - spare, len(places) - 0.4 + spare)
    axis.set_title(histogram.title, fontsize=9)
    axis.set_ylabel("%", fontsize=8)
    _quieten(axis, "y")


def _draw_classes(axis: Axes, sets: Sequence[Counts], classes: dict[int, str]) -> None:
    """Draws a dot for each class and set, on a logarithmic axis that includes 0."""
    places = np.arange(len(classes))
    for number, counts in enumerate(sets):
        axis.plot(
            [counts.class_objects.get(key, 0) for key in classes],
            places,
            SET_MARKERS[number % 3],
            color=SET_COLOURS[number % 3],
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.4,
            label=counts.name,
            clip_on=False,
        )
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_yticks(places, list(classes.values()), fontsize=7.5, parse_math=False)
    axis.set_ylim(-0.7, len(classes) - 0.3)
    axis.set_title("Objects of each class", fontsize=9)
    axis.set_xlabel("objects, on a logarithmic axis", fontsize=8)
    _legend_below(axis)
    _quieten(axis, "both")


def _draw_reach(axis: Axes, reaches: Sequence[Reach]) -> None:
    places, lefts = np.arange(len(reaches)), np.zeros(len(reaches))
    for number, name in enumerate(REACHED):
        widths = np.array([100 * reach.shares[number] for reach in reaches])
        axis.barh(
            places,
            widths,
            0.75,
            left=lefts,
            label=name,
            color=REACH_COLOURS[number],
            hatch=REACH_HATCHES[number],
            edgecolor="white",
            linewidth=0.5,
        )
        lefts += widths
    axis.set_yticks(places, [shortened(reach.name) for reach in reaches], fontsize=7.5, parse_math=False)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of the objects", fontsize=8)
    _legend_below(axis)
    _quieten(axis, "x")


def _legend_below(axis: Axes) -> None:
    """Adds a legend below the axis, clear of the bars and dots."""
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -40 / axis.bbox.height), ncols=3, frameon=False)


def _quieten(axis: Axes, lines: Literal["x", "y", "both"]) -> None:
    axis.grid(axis=lines, color="0.85", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7.5, length=0)
    axis.spines[:].set_visible(False)

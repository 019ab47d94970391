"""Draws the loss curves of several runs in one picture, with their AP curves below."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from retinanet.evaluation.coco_table import AP, AP50
from retinanet.reports.labels import PALETTE
from retinanet.reports.log_reader import RunLog
from retinanet.reports.run_names import run_names
from retinanet.runtime.printable import printable

# Markers and dashes distinguish runs in black and white too: up to 77 runs have different combinations.
MARKERS = ("o", "s", "^", "D", "P", "X", "p", "<", "h", ">", "*")
DASHES = ("", (6, 2), (2, 1.2), (6, 1.5, 1, 1.5), (9, 2, 2, 2), (1, 1), (10, 3))
DROP_MARKER = "v"
MARKERS_A_CURVE = 8
DIVERGED = 3.0  # a run that ends above this multiple of its first loss has diverged
UNTRAINED = 1.0  # about the loss of an untrained network. A lower first loss may come from an image without objects
MOST_WITH_AP50 = 4  # runs; with more, the lower half would be unreadable
CURVES_WIDTH, LOSS_HEIGHT, AP_HEIGHT, LEGEND_LINE_HEIGHT = 8.0, 4.0, 2.6, 0.2  # inches
LEGEND_LETTERS, MOST_NAME_LETTERS = 110, 60  # in a line of the legend; in a run's name
MOST_LOSS = 1e200  # the largest loss drawn: matplotlib's margins and ticks overflow at 1e300


class Curve(NamedTuple):
    """Holds the curves of a training run."""

    name: str
    epochs: np.ndarray  # [N], epochs finished: 1.5 is the middle of the second epoch
    losses: np.ndarray  # [N]
    drops: np.ndarray  # indices of the first losses after each drop of the learning rate
    tables: np.ndarray  # [T, 3]: epochs finished, AP, AP50


def curves_of(logs: Sequence[RunLog]) -> list[Curve]:
    """Returns a curve for each log of a training run; logs of test.py have none."""
    return [_curve(log, name) for log, name in zip(logs, run_names(logs), strict=True) if log.has_losses]


def draw_curves(curves: Sequence[Curve], log_scale: bool, window: bool = False) -> Figure:
    """Draws the losses and, if any run was evaluated, AP. With `window`, show_windows can show the figure."""
    has_ap = any(len(curve.tables) for curve in curves)
    names = [_legend_name(curve) for curve in curves]
    columns = max(1, LEGEND_LETTERS // (max(map(len, names)) + 14))
    legend_height = LEGEND_LINE_HEIGHT * (-(-len(names) // columns) + 1)
    make = pyplot.figure if window else Figure  # only pyplot opens windows, but it fails without a screen
    heights = (LOSS_HEIGHT, AP_HEIGHT)[: 1 + has_ap]
    figure = make(figsize=(CURVES_WIDTH, sum(heights) + legend_height), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0].tolist()
    styles = [_style(index) for index in range(len(curves))]
    for index, (curve, style) in enumerate(zip(curves, styles, strict=True)):
        _draw_losses(axes[0], curve, style, log_scale, shift=index / len(curves))
        if has_ap:
            _draw_ap(axes[1], curve, style, with_ap50=len(curves) <= MOST_WITH_AP50)
    _scale(axes, log_scale)
    axes[0].set_xlim(0, 1.02 * max(1, *(np.ceil(curve.epochs[-1]) for curve in curves)))
    axes[0].set_ylabel("loss (running mean)")
    _limit_losses(axes[0], curves)
    if has_ap:
        axes[1].set_ylabel("AP, and AP50 (hollow)" if len(curves) <= MOST_WITH_AP50 else "AP")
    handles = [Line2D([], [], **style) for style in styles]
    if any(len(curve.drops) for curve in curves):
        handles.append(Line2D([], [], color="black", linestyle="", **_hollow(DROP_MARKER)))
        names.append("learning rate drops")
    legend = figure.legend(
        handles, ["."] * len(names), loc="outside lower left", ncols=columns, fontsize=8, handlelength=5
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # set last: a name may contain $, or start with _, which would hide it
        text.set_text(name)
    return figure


def _curve(log: RunLog, name: str) -> Curve:
    if log.points:
        num_steps = max(1, *(point.iteration for point in log.points))
        in_epoch = np.array([point.epoch for point in log.points])
        epochs = in_epoch + np.array([point.iteration for point in log.points]) / num_steps
        losses = np.array([point.running for point in log.points])
    else:
        in_epoch = np.array(sorted(log.epoch_losses))
        epochs, losses = in_epoch + 1.0, np.array([log.epoch_losses[epoch] for epoch in in_epoch.tolist()])
    drops = np.searchsorted(in_epoch, np.array(log.drops, dtype=int))
    end = int(np.ceil(epochs[-1]))  # used for a table whose epoch is unknown
    tables = [(end if epoch is None else epoch, numbers[AP], numbers[AP50]) for epoch, numbers in log.tables.items()]
    tables = [table for table in tables if table[1] >= 0]  # -1 for a set without objects
    return Curve(name, epochs, losses, drops[drops < len(losses)], np.array(tables, float).reshape(-1, 3))


def _legend_name(curve: Curve) -> str:
    name, half = printable(curve.name), MOST_NAME_LETTERS // 2
    if len(name) > MOST_NAME_LETTERS:
        name = f"{name[: half - 1]}…{name[-half:]}"
    return name if np.isfinite(curve.losses).any() else f"{name} (no finite loss)"


def _style(index: int) -> dict[str, Any]:
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": (0, DASHES[index % len(DASHES)] or None),
        "markersize": 5,
        "linewidth": 1.5,
    }


def _hollow(marker: str) -> dict[str, Any]:
    return {"marker": marker, "markerfacecolor": "white", "markersize": 8}


def _draw_losses(axis: Axes, curve: Curve, style: dict[str, Any], log_scale: bool, shift: float) -> None:
    """Draws the losses. `shift`, from 0 to 1, offsets the markers, so that they stay visible where curves overlap."""
    drawn = np.isfinite(curve.losses) & (curve.losses > 0 if log_scale else True)
    losses = np.where(drawn, curve.losses, np.nan).clip(-MOST_LOSS, MOST_LOSS)
    step = max(1, len(losses) // MARKERS_A_CURVE)
    around = np.pad(drawn, 1)
    is_marked = drawn & ~around[:-2] & ~around[2:]  # a single point between gaps, which no line would show
    is_marked[int(shift * step) :: step] = True
    axis.plot(curve.epochs, losses, markevery=np.flatnonzero(is_marked), **style)
    at_drops = {**style, "linestyle": "", **_hollow(DROP_MARKER), "zorder": 3}
    axis.plot(curve.epochs[curve.drops], losses[curve.drops], **at_drops)


def _draw_ap(axis: Axes, curve: Curve, style: dict[str, Any], with_ap50: bool) -> None:
    epochs, ap, ap50 = curve.tables.T
    axis.plot(epochs, ap, **style)
    if with_ap50:
        axis.plot(epochs, ap50, **{**style, "markerfacecolor": "white", "linewidth": 0.8, "alpha": 0.7})


def _scale(axes: Sequence[Axes], log_scale: bool) -> None:
    for axis in axes:
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    if log_scale:
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter(NullFormatter())
    for axis in axes[1:]:
        axis.set_ylim(bottom=0)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel("epochs finished")


def _limit_losses(axis: Axes, curves: Sequence[Curve]) -> None:
    """Limits the axis and adds a note if diverged runs, which end far above their start, would flatten the others."""
    named = [(curve, curve.losses[np.isfinite(curve.losses)].clip(-MOST_LOSS, MOST_LOSS)) for curve in curves]
    known = [(curve, losses) for curve, losses in named if len(losses)]
    if not known:
        return
    limits = [DIVERGED * max(losses[0], UNTRAINED) for _, losses in known]
    usual = [limit for limit, (_, losses) in zip(limits, known, strict=True) if losses[-1] <= limit]
    top = max(usual, default=min(limits))
    above = [curve for curve, losses in known if losses.max() > top]
    positive = min((losses[losses > 0].min() for _, losses in known if (losses > 0).any()), default=0.0)
    if above and positive < top:
        lowest = min(losses.min() for _, losses in known)
        bottom = max(positive / 1.2, 1 / MOST_LOSS) if axis.get_yscale() == "log" else min(0.0, lowest)
        axis.set_ylim(bottom, top)
        highest = max(losses.max() for _, losses in known)
        runs = f"{_legend_name(above[0])} goes" if len(above) == 1 else f"{len(above)} runs go"
        text = f"{runs} above this axis, up to {highest:.3g}"
        axis.text(0.995, 0.98, text, transform=axis.transAxes, ha="right", va="top", fontsize=8)


def rate_chart(rates: Sequence[float], losses: Sequence[float], medians: np.ndarray, suggested: float | None) -> Figure:
    """Plots the loss and its sliding `medians` against the learning rate, and marks the suggested rate."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.plot(rates, losses, color="#c0c0c0", linewidth=0.8, label="loss of a step")
    margin = (len(rates) - len(medians)) // 2
    axis.plot(rates[margin : margin + len(medians)], medians, color=PALETTE[0], linewidth=2.2, label="median around it")
    if suggested is not None:
        axis.axvline(suggested, color=PALETTE[2], linestyle="dashed", label=f"suggested: {suggested:.1e}")
    known = medians[np.isfinite(medians)]
    if len(known):  # single steps may be far off, and the last steps usually are
        axis.set_ylim(0.7 * known.min(), 2 * known.max(initial=0, where=known <= 2 * known.min()))
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axis.grid(alpha=0.4)
    figure.legend(loc="outside upper right", ncols=3)
    return figure

"""What changed from one result file to another, and whether it is more than the luck of the images."""

from typing import NamedTuple

import numpy as np

from retinanet.analysis import Analysis, image_f1, is_taken
from retinanet.analysis_panels import found_panel
from retinanet.annotations import Annotations
from retinanet.average_precision import mean_of_classes
from retinanet.bootstrap import Interval, centred, interval
from retinanet.data import CocoDataset
from retinanet.error_kinds import ERROR_KINDS
from retinanet.plots import Panel
from retinanet.printable import printable

MOST_SHOWN = 4  # images won, and images lost


class Difference(NamedTuple):
    """A number of B less that of A, over the same draws of the images for both."""

    name: str
    a: float
    b: float
    difference: Interval
    wins: float  # share of the draws in which B's is the higher, a tie counting half; NaN without draws


class Comparison(NamedTuple):
    differences: list[Difference]  # AP, AP50, then each class's AP
    lost_more: np.ndarray  # [6], AP50 that B loses to each of ERROR_KINDS, less what A loses
    f1: np.ndarray  # [2, N], of each image, A's and B's


def compare(a: Analysis, b: Analysis, annotations: Annotations) -> Comparison:
    """Compare two analyses of the same set, made with the same number of draws."""
    means = [(mean_of_classes(one.class_ap.T), one.drawn_means) for one in (a, b)]
    numbers = [
        (name, *(pair for one in means for pair in (one[0][row], one[1][row])))
        for row, name in enumerate(("AP", "AP50"))
    ]
    numbers += [
        (
            f"AP of {a.classes[label].name}",
            *(pair for one in (a, b) for pair in (one.class_ap[0, label], one.drawn[0, label])),
        )
        for label in range(len(a.classes))
    ]
    return Comparison(
        differences=[_difference(*one) for one in numbers],
        lost_more=b.lost - a.lost,
        f1=np.stack([image_f1(one, annotations) for one in (a, b)]),
    )


def _difference(name: str, a: float, drawn_a: np.ndarray, b: float, drawn_b: np.ndarray) -> Difference:
    drawn = centred(b - a, drawn_b - drawn_a)
    wins = float(((drawn > 0) + (drawn == 0) / 2).mean()) if len(drawn) else float("nan")
    return Difference(name, float(a), float(b), interval(b - a, drawn), wins)


def comparison_lines(comparison: Comparison, num_draws: int, num_images: int) -> list[str]:
    """The lines to print."""
    names = [printable(one.name) for one in comparison.differences]
    width = max(map(len, names))
    lines = [f"{'':<{width}}      A      B  {'B - A':>25}  B higher in"]
    for name, one in zip(names, comparison.differences, strict=True):
        change = "-" if np.isnan(one.difference.value) else f"{one.difference.value:+.3f}"
        if not np.isnan(one.difference.low):
            change += f" ({one.difference.low:+.3f} to {one.difference.high:+.3f})"
        a, b = ("    -" if np.isnan(number) else f"{number:.3f}" for number in (one.a, one.b))
        wins = "-" if np.isnan(one.wins) else f"{one.wins:.1%}"
        lines.append(f"{name:<{width}}  {a}  {b}  {change:>25}  {wins:>11}")
    shifts = ", ".join(f"{kind} {more:+.3f}" for kind, more in zip(ERROR_KINDS, comparison.lost_more, strict=True))
    if num_draws:
        lines.append(f"In brackets 95% intervals over {num_draws} draws of the {num_images} images, the same for both")
    return [*lines, f"AP50 that B loses to each kind of error, less what A loses: {shifts}"]


def comparison_panels(comparison: Comparison, a: Analysis, b: Analysis, dataset: CocoDataset) -> list[Panel]:
    """The images most won by B, then those most lost, each as A and B see it at its best threshold."""
    gains = comparison.f1[1] - comparison.f1[0]
    order = np.argsort(-gains, kind="stable")
    chosen = [*order[gains[order] > 0][:MOST_SHOWN], *order[gains[order] < 0][::-1][:MOST_SHOWN]]
    panels = []
    for image in chosen:
        verdict = "won" if gains[image] > 0 else "lost"
        name = dataset.annotations.file_names[image]
        for title, one, f1 in zip((f"{name}: A", f"B, {verdict}"), (a, b), comparison.f1, strict=True):
            panels.append(found_panel(f"{title}: F1 {f1[image]:.2f}", dataset, image, one, is_taken(one)))
    return panels

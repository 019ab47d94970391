"""What changed from one result file to another, and whether it is more than chance."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.evaluation.analysis import Analysis, image_f1
from retinanet.evaluation.average_precision import mean_of_classes
from retinanet.evaluation.intervals import Interval, centred, interval


class Difference(NamedTuple):
    """A number of B minus that of A, over the same draws of the images."""

    name: str
    a: float
    b: float
    difference: Interval
    wins: float  # share of the draws in which B's is higher, ties counting half; NaN without draws


class Comparison(NamedTuple):
    differences: list[Difference]  # AP, AP50, then each class's AP
    lost_more: np.ndarray  # [6], AP50 that B loses to each of ERROR_KINDS, minus what A loses
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

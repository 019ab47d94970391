"""Compares two result files for the same set, and estimates whether a difference is more than chance."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.evaluation.analysis import Analysis, image_f1
from retinanet.evaluation.average_precision import mean_of_classes
from retinanet.evaluation.intervals import Interval, centred, interval_of_centred


class Difference(NamedTuple):
    """Holds a metric of A and of B, and the difference B - A, whose interval uses the same bootstrap draws for both."""

    name: str
    a: float
    b: float
    difference: Interval
    wins: float  # fraction of the draws in which B's metric is higher, ties counting half; NaN without draws


class Comparison(NamedTuple):
    differences: list[Difference]  # AP, AP50, then each class's AP
    lost_more: np.ndarray  # [6], AP50 that B loses to each of ERROR_KINDS, minus the AP50 that A loses
    f1: np.ndarray  # [2, N], F1 of A and of B in each image


def compare(a: Analysis, b: Analysis, annotations: Annotations) -> Comparison:
    """Compares two analyses of the same set, made with the same number of draws."""
    means = [(mean_of_classes(analysis.class_ap.T), analysis.drawn_means) for analysis in (a, b)]
    numbers = [
        (name, *(pair for values, drawn in means for pair in (values[row], drawn[row])))
        for row, name in enumerate(("AP", "AP50"))
    ]
    numbers += [
        (
            f"AP of {a.classes[label].name}",
            *(pair for analysis in (a, b) for pair in (analysis.class_ap[0, label], analysis.drawn[0, label])),
        )
        for label in range(len(a.classes))
    ]
    return Comparison(
        differences=[_difference(*named) for named in numbers],
        lost_more=b.lost - a.lost,
        f1=np.stack([image_f1(analysis, annotations) for analysis in (a, b)]),
    )


def _difference(name: str, a: float, drawn_a: np.ndarray, b: float, drawn_b: np.ndarray) -> Difference:
    drawn = drawn_b - drawn_a
    drawn = drawn[~np.isnan(drawn)]
    # A draw without the images in which A and B differ stays a tie: a shift would make it a win of one of them.
    drawn = np.where(drawn == 0, 0, centred(b - a, drawn))
    wins = float(((drawn > 0) + (drawn == 0) / 2).mean()) if len(drawn) else float("nan")
    return Difference(name, float(a), float(b), interval_of_centred(b - a, drawn), wins)

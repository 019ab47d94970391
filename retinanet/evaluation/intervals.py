"""Computes confidence intervals by drawing the images again, a bootstrap (Efron, 1979)."""

import math
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
DRAWS_SEED = 0


class Interval(NamedTuple):
    """A number and its 95% interval over sets of as many images of the same kind. The bounds are NaN if not known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})")


def draws_of_images(num_images: int, num_draws: int) -> np.ndarray:
    """Returns how often each image is drawn in each of `num_draws` sets of as many images: uint8 [draws, N].

    An image drawn twice counts twice. If it counted once, intervals would be some 23% too narrow.
    """
    draw = np.random.default_rng(DRAWS_SEED)
    weights = np.empty((num_draws, num_images), np.uint8)
    for row in weights:  # row by row: the drawn indices take eight times the memory of the counts
        row[:] = np.bincount(draw.integers(0, num_images, num_images), minlength=num_images)
    return weights


def centred(value: float, drawn: np.ndarray) -> np.ndarray:
    """Returns the numbers of the draws [W], shifted to have `value` as their mean, without NaN.

    AP is higher on fewer distinct images, so the draws lie too high: for small classes the value itself would lie
    outside their middle 95%.
    """
    drawn = drawn[~np.isnan(drawn)]
    return drawn - drawn.mean() + value if len(drawn) else drawn


def interval(value: float, drawn: np.ndarray, least: float = -np.inf, most: float = np.inf) -> Interval:
    """Returns the 95% interval of a number, from its values over the draws [W] shifted around it.

    The bounds are NaN if no draw has a value.
    """
    drawn = centred(value, drawn)
    if not len(drawn) or np.isnan(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(max(least, low)), float(min(most, high)))

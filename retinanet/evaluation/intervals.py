"""Computes confidence intervals by resampling the images: the bootstrap (Efron, 1979)."""

import math
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
DRAWS_SEED = 0


class Interval(NamedTuple):
    """Holds a number and its 95% confidence interval; unknown bounds are NaN."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})")


def draws_of_images(num_images: int, num_draws: int) -> np.ndarray:
    """Returns how often each image occurs in each of `num_draws` samples of N images: uint8 [draws, N].

    An image drawn twice counts twice. If repeats didn't count, the intervals would be about 24% too narrow.
    """
    draw = np.random.default_rng(DRAWS_SEED)
    weights = np.empty((num_draws, num_images), np.uint8)
    for row in weights:  # row by row, because the drawn indices take eight times the memory of the counts
        row[:] = np.bincount(draw.integers(0, num_images, num_images), minlength=num_images)
    return weights


def centred(value: float, drawn: np.ndarray) -> np.ndarray:
    """Returns the draws' values, `drawn` [W], without NaN and shifted so that their mean is `value`.

    A draw has fewer distinct images than the set, which tends to raise AP. Without the shift, the `value` of a small
    class could lie outside the middle 95% of its draws.
    """
    drawn = drawn[~np.isnan(drawn)]
    return drawn - drawn.mean() + value if len(drawn) else drawn


def interval(value: float, drawn: np.ndarray, least: float = -np.inf, most: float = np.inf) -> Interval:
    """Returns the 95% interval of `value`: the quantiles of the draws' values, `drawn` [W], as shifted by `centred`.

    The bounds are clipped to [`least`, `most`], and are NaN if `value` is NaN or no draw has a value.
    """
    return interval_of_centred(value, centred(value, drawn), least, most)


def interval_of_centred(value: float, drawn: np.ndarray, least: float = -np.inf, most: float = np.inf) -> Interval:
    """Returns the interval that `interval` returns, from draws that are already centred."""
    if not len(drawn) or np.isnan(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(max(least, low)), float(min(most, high)))

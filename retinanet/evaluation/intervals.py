"""How much a number would vary on other images: intervals from drawing the images again (Efron, 1979)."""

import math
from typing import NamedTuple

import numpy as np

SHARE = 0.95
SEED = 0


class Interval(NamedTuple):
    """A number and where it would lie on 95% of the sets of as many images of the same kind; NaN where not known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})")


def draws_of_images(num_images: int, num_draws: int) -> np.ndarray:
    """How often each image is drawn in each of `num_draws` sets of as many images: uint8 [draws, N], always the same.

    An image drawn twice counts twice. Where it is counted once, intervals are some 23% too narrow.
    """
    draw = np.random.default_rng(SEED)
    weights = np.empty((num_draws, num_images), np.uint8)
    for row in weights:  # one by one: the numbers drawn are eight times as large
        row[:] = np.bincount(draw.integers(0, num_images, num_images), minlength=num_images)
    return weights


def centred(value: float, drawn: np.ndarray) -> np.ndarray:
    """What the draws give [W], laid around the value; without those that give none.

    AP is higher on fewer different images, so that the draws lie too high, the value itself outside of their middle
    95% where classes are small.
    """
    drawn = drawn[~np.isnan(drawn)]
    return drawn - drawn.mean() + value if len(drawn) else drawn


def interval(value: float, drawn: np.ndarray, least: float = -np.inf, most: float = np.inf) -> Interval:
    """The 95% interval of a number from what the draws give [W], laid around it; NaN where a draw gives none."""
    drawn = centred(value, drawn)
    if not len(drawn) or np.isnan(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float(value), float(max(least, low)), float(min(most, high)))

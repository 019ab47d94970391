import math

import numpy as np
import pytest

from benchmarks.checks.intervals import coverage
from retinanet.evaluation.intervals import Interval, draws_of_images, interval


def test_draws_are_of_as_many_images_and_always_the_same():
    weights = draws_of_images(50, 200)
    assert weights.shape == (200, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights > 1).any(axis=1).all()
    assert np.array_equal(weights, draws_of_images(50, 200))
    # The number of times an image is drawn varies by nearly 1; counted once at most it would by 0.23.
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)


def test_an_interval_lies_around_the_value():
    drawn = np.linspace(0.55, 0.65, 1001)  # too high by 0.1
    assert interval(0.5, drawn) == pytest.approx((0.5, 0.4525, 0.5475))
    assert interval(0.99, drawn, 0, 1).high == 1
    assert interval(0.01, drawn, 0, 1).low == 0
    assert str(interval(0.5, drawn)) == "0.500 (0.453 to 0.547)"


def test_what_is_not_known():
    assert interval(0.5, np.array([0.4, np.nan, 0.4])) == Interval(0.5, 0.5, 0.5)
    assert str(interval(0.5, np.array([]))) == "0.500"
    none = interval(math.nan, np.array([np.nan]))
    assert str(none) == "-"
    assert math.isnan(none.low)


def test_intervals_cover_the_truth():
    """95% of them; `python -m benchmarks.checks.intervals` draws more."""
    found = coverage(num_images=150, num_classes=2, num_sets=300, num_draws=120)
    assert 0.93 <= found.covered <= 0.97
    assert found.width == pytest.approx(found.spread, rel=0.1)

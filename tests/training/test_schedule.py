import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.training.schedule import Schedule, sgd_rate


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-4), (479, 1e-4), (480, 1e-5), (639, 1e-5), (640, 1e-6), (10_000, 1e-6)]
)
def test_divided_by_ten_where_a_milestone_epoch_begins(step, rate):
    assert Schedule(1e-4, range(0, 730, 10), milestones=[48, 64]).rate(step) == pytest.approx(rate)


def test_epochs_of_different_lengths():
    schedule = Schedule(1.0, (0, 3, 4, 9), milestones=[1, 2])
    assert [schedule.rate(step) for step in range(9)] == pytest.approx([1] * 3 + [0.1] + [0.01] * 5)


def test_no_milestones():
    assert Schedule(0.01, range(0, 730, 10)).rate(12345) == 0.01


@pytest.mark.parametrize(
    ("step", "share"), [(0, 1.0), (25, (1 + math.sqrt(0.5)) / 2), (50, 0.5), (99, 0.000246720), (100, 0.0)]
)
def test_half_a_cosine_to_zero(step, share):
    assert Schedule(0.01, range(0, 110, 10), "cosine").rate(step) == pytest.approx(0.01 * share, abs=1e-9)


@pytest.mark.parametrize(("step", "share"), [(0, 0.2), (3, 0.8), (4, 1.0), (12, 0.5), (20, 0.0)])
def test_a_warm_up_comes_before_the_cosine(step, share):
    assert Schedule(1.0, (0, 10, 20), "cosine", warmup_steps=4).rate(step) == pytest.approx(share)


def test_a_warm_up_delays_no_milestone():
    rates = [Schedule(1.0, (0, 2, 4, 6), milestones=[2], warmup_steps=1).rate(step) for step in range(6)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1])


@given(st.sampled_from(["step", "cosine"]), st.integers(1, 50), st.integers(1, 20), st.data())
def test_rates_rise_in_the_warm_up_and_never_after(kind, steps_per_epoch, epochs, data):
    first_steps = range(0, (epochs + 1) * steps_per_epoch, steps_per_epoch)
    warmup = data.draw(st.integers(0, steps_per_epoch * epochs - 1))
    schedule = Schedule(0.1, first_steps, kind, [epochs // 2], warmup)
    rates = [schedule.rate(step) for step in range(schedule.num_steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_sgds_rate_is_the_papers_at_its_batch():
    assert sgd_rate(16) == 0.01
    assert sgd_rate(2) == pytest.approx(0.00125)

import pytest

from retinanet.schedule import learning_rate


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-4), (479, 1e-4), (480, 1e-5), (639, 1e-5), (640, 1e-6), (10_000, 1e-6)]
)
def test_divided_by_ten_where_a_milestone_epoch_begins(step, rate):
    assert learning_rate(step, 1e-4, steps_per_epoch=10, milestones=[48, 64]) == pytest.approx(rate)


def test_no_milestones():
    assert learning_rate(12345, 0.01, steps_per_epoch=10, milestones=[]) == 0.01

"""Decides when training on a GPU counts as equal to training on the CPU."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from gpu.cases import Trained


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative to the size of what is wanted."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def assert_same(found: Trained, wanted: Trained) -> None:
    """All weights, statistics and averages are the CPU's to 1e-4, the losses to 1e-3, and the steps' changes to 5e-2.

    The changes are small beside the weights, so they say more: a gradient that is 5% off shows in them alone. They are
    equal to some 5e-5, but where rounding decides which of two pixels a max-pool takes, or a ReLU, to 1e-2.
    """
    assert_near(found, wanted, of_weights=1e-4, of_changes=5e-2, of_losses=1e-3)


def assert_near(found: Trained, wanted: Trained, *, of_weights: float, of_changes: float, of_losses: float) -> None:
    """So near; NaN is not."""
    assert found.num_skipped == wanted.num_skipped == 0
    for name in ("weights", "average"):
        values, others = getattr(found, name), getattr(wanted, name)
        assert values.keys() == others.keys()
        if others:
            assert distance(_flat(values.values()), _flat(others.values())) <= of_weights
    assert distance(found.changes, wanted.changes) <= of_changes
    for losses, own in zip(found.losses, wanted.losses, strict=True):
        assert losses == pytest.approx(own, rel=of_losses)


def _flat(values: Iterable[Tensor]) -> Tensor:
    return torch.cat([value.double().flatten() for value in values])

"""The learning rate as a pure function of the step."""

from collections.abc import Sequence

FACTOR = 0.1


def learning_rate(step: int, base: float, steps_per_epoch: int, milestones: Sequence[int]) -> float:
    """The rate of the given step (0 is the first): `base`, divided by 10 at each milestone epoch that has begun."""
    epoch = step // steps_per_epoch
    return base * FACTOR ** sum(epoch >= milestone for milestone in milestones)

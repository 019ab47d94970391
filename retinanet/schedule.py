"""The learning rate as a pure function of the step."""

import math
from collections.abc import Sequence
from typing import NamedTuple

FACTOR = 0.1
KINDS = ("step", "cosine")
LEARNING_RATE, BATCH_SIZE = 1e-4, 2  # the published runs'


class Schedule(NamedTuple):
    """`step`: `base`, divided by 10 at each milestone epoch that has begun. `cosine`: from `base` along half a cosine
    to 0 at the end of the run (https://arxiv.org/abs/1608.03983). Both after a linear warm-up."""

    base: float
    steps_per_epoch: int
    epochs: int
    kind: str = "step"
    milestones: Sequence[int] = ()
    warmup_steps: int = 0

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """The rate of the given step; 0 is the first, and the one after the warm-up is the first with all of it."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / (self.warmup_steps + 1)
        if self.kind == "cosine":
            done = (step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
            return self.base * (1 + math.cos(math.pi * done)) / 2
        epoch = step // self.steps_per_epoch
        return self.base * FACTOR ** sum(epoch >= milestone for milestone in self.milestones)


def linear_rule(batch_size: int) -> float:
    """The rate that goes with so many images a step (https://arxiv.org/abs/1706.02677)."""
    return LEARNING_RATE * batch_size / BATCH_SIZE

"""The schedule of the learning rate, a pure function of the step."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from retinanet.settings.train import COSINE, STEP

FACTOR = 0.1


class Schedule(NamedTuple):
    """`step`: `base`, divided by 10 at each milestone epoch that has begun. `cosine`: from `base` along half a cosine
    to 0 at the end of the run (https://arxiv.org/abs/1608.03983). Both after a linear warm-up."""

    base: float
    steps_per_epoch: int
    epochs: int
    kind: str = STEP
    milestones: Sequence[int] = ()
    warmup_steps: int = 0

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """The rate of the given step; 0 is the first, and the one after the warm-up is the first with all of it."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / (self.warmup_steps + 1)
        if self.kind == COSINE:
            done = (step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
            return self.base * (1 + math.cos(math.pi * done)) / 2
        epoch = step // self.steps_per_epoch
        return self.base * FACTOR ** sum(epoch >= milestone for milestone in self.milestones)


def sgd_rate(batch_size: int) -> float:
    """The rate for so many images a step: RetinaNet's (https://arxiv.org/abs/1708.02002), 0.01 for 16 images, by the
    linear scaling rule (https://arxiv.org/abs/1706.02677)."""
    return 0.01 * batch_size / 16

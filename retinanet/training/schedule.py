"""Computes the learning rate, a pure function of the step."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from retinanet.settings.train import COSINE, STEP

FACTOR = 0.1


class Schedule(NamedTuple):
    """The learning rate as a function of the step, with a linear warm-up.

    The kind `step` divides the rate by 10 at the start of each milestone epoch. The kind `cosine` lowers the rate
    along half a cosine wave, from `base` after the warm-up to 0 at the end of the run
    (https://arxiv.org/abs/1608.03983).
    """

    base: float
    first_steps: Sequence[int]  # of each epoch; then the number of steps in the run
    kind: str = STEP
    milestones: Sequence[int] = ()
    warmup_steps: int = 0

    @property
    def num_steps(self) -> int:
        return self.first_steps[-1]

    def rate(self, step: int) -> float:
        """Returns the rate of `step`, counted from 0; the step after the warm-up is the first with the full rate."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / (self.warmup_steps + 1)
        if self.kind == COSINE:
            done = (step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
            return self.base * (1 + math.cos(math.pi * done)) / 2
        epoch = bisect_right(self.first_steps, step) - 1
        return self.base * FACTOR ** sum(epoch >= milestone for milestone in self.milestones)


def sgd_rate(batch_size: int) -> float:
    """Returns the learning rate of SGD for steps of `batch_size` images.

    The RetinaNet paper (https://arxiv.org/abs/1708.02002) uses 0.01 for 16 images; for other sizes, the linear scaling
    rule (https://arxiv.org/abs/1706.02677) applies.
    """
    return 0.01 * batch_size / 16

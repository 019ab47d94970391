"""Batches of images of like shape."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

# Enough to mix images of nearly equal shape anew each epoch, too little to put a wide one beside a tall one.
SHAPE_JITTER = 0.05


class Draw(NamedTuple):
    """A batch to be read: which images, in which epoch, on which their augmentation depends."""

    epoch: int
    indices: list[int]
    sides: tuple[int, int]  # (height, width) that hold each of its images, those of other ranks included


class AspectRatioBasedSampler(Sampler[Draw]):
    """The batches of one rank, drawn anew each epoch as a function of (seed, epoch) alone.

    The images are ordered by their shape with a little noise, so that like shapes share a batch and little is padded;
    images of one shape come in any order. The batches are then shuffled. Every image comes exactly once an epoch, at
    one of the ranks; with `drop_last`, the few that don't fill a batch are left out, others each epoch. All ranks have
    the same number of batches, each its share of a common one; in one that is not full that share may be empty.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """`sizes` [N, 2] are the images' (height, width); `batch_size` is that of a rank."""
        heights, widths = sizes.T
        self.sizes, self.shapes = sizes, np.log(widths / heights)
        self.batch_size, self.seed, self.drop_last = batch_size * num_ranks, seed, drop_last
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch, self.first_batch = 0, 0

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Have the next iteration give the batches of `epoch` from the given one on."""
        self.epoch, self.first_batch = epoch, batch

    def __iter__(self) -> Iterator[Draw]:
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.shapes))
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        order = order[np.argsort(self.shapes[order] + draw.normal(0, SHAPE_JITTER, len(order)), kind="stable")]
        for batch in draw.permutation(len(self))[self.first_batch :]:
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            height, width = self.sizes[rows].max(axis=0).tolist()
            yield Draw(self.epoch, rows[self.rank :: self.num_ranks].tolist(), (height, width))

    def __len__(self) -> int:
        """The batches of a whole epoch."""
        if self.drop_last:
            return len(self.shapes) // self.batch_size
        return -(-len(self.shapes) // self.batch_size)


def batches_of_equal_shape(shapes: np.ndarray, batch_size: int) -> list[list[int]]:
    """All indices of `shapes` [N, 2], or [N, 2 x sides], in batches that share a shape exactly.

    For evaluation: no image is padded for another's sake, so what is found in it does not depend on its neighbours.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes.tolist()):
        groups.setdefault(tuple(shape), []).append(index)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]

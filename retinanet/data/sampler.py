"""Batches of images of like shape."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from retinanet.runtime.ranks import ALONE, Ranks

# Enough to mix images of nearly equal shape differently each epoch, too little to pair a wide one with a tall one.
SHAPE_JITTER = 0.05
SIDE_STREAM = 2  # tells a batch's draws from others of the same seed, epoch and number; not 0, which numpy ignores


class Draw(NamedTuple):
    """A batch to be read: which images, in which epoch, on which their augmentation depends."""

    epoch: int
    indices: list[int]
    sides: tuple[int, int]  # (height, width) that hold each of its images, those of other ranks included
    side: int | None = None  # its images' shorter side, if that was drawn too


class AspectRatioBasedSampler(Sampler[Draw]):
    """The batches of one rank, drawn for each epoch as a function of (seed, epoch) alone.

    The images are ordered by their shape with a little noise, so that like shapes share a batch and little is padded;
    images of one shape come in any order. The batches are then shuffled. Every image comes exactly once an epoch, at
    one of the ranks; with `drop_last`, the few that don't fill a batch are left out, others each epoch. All ranks have
    the same number of batches, each its share of a common one; in one that is not full that share may be empty. A
    common one has a common side, drawn as a function of (seed, epoch, batch). With `accumulate` a rank's share comes in
    as many draws, one after the other, for one step.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        *,
        accumulate: int = 1,
        ranks: Ranks = ALONE,
        train_sides: Sequence[int] = (),
        sizes_at: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> None:
        """`sizes` [N, 2] are the images' (height, width); `batch_size` is that of a rank's draw.

        `train_sides` are the shorter sides to draw from, and `sizes_at` gives the sizes of some images at one of them.
        """
        assert not train_sides or sizes_at is not None
        heights, widths = sizes.T
        self.train_sides, self.sizes_at = train_sides, sizes_at
        self.sizes, self.shapes = sizes, np.log(widths / heights)
        self.batch_size, self.seed, self.drop_last = batch_size * ranks.size * accumulate, seed, drop_last
        self.accumulate, self.rank, self.num_ranks = accumulate, ranks.rank, ranks.size
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
            side = self._side(int(batch))
            sizes = self.sizes[rows] if side is None or self.sizes_at is None else self.sizes_at(rows, side)
            height, width = sizes.max(axis=0).tolist()
            for part in range(self.accumulate):
                share = rows[part * self.num_ranks + self.rank :: self.accumulate * self.num_ranks]
                yield Draw(self.epoch, share.tolist(), (height, width), side)

    def _side(self, batch: int) -> int | None:
        if not self.train_sides:
            return None
        draw = np.random.default_rng([self.seed, self.epoch, batch, SIDE_STREAM])
        return self.train_sides[int(draw.integers(len(self.train_sides)))]

    def __len__(self) -> int:
        """The batches of a whole epoch, each of all ranks and draws together."""
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

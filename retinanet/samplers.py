"""Batches of images of like shape."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Enough to mix images of nearly equal shape anew each epoch, too little to put a wide one beside a tall one.
SHAPE_JITTER = 0.05


class AspectRatioBasedSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), drawn anew each epoch as a function of (seed, epoch) alone.

    The images are ordered by their shape with a little noise, so that like shapes share a batch and little is padded;
    images of one shape come in any order. The batches are then shuffled. Every image comes exactly once an epoch;
    with `drop_last`, the few that don't fill a batch are left out, others each epoch. The epoch is handed on with the
    index because a sample's augmentation depends on it.
    """

    def __init__(self, sizes: np.ndarray, batch_size: int, seed: int, drop_last: bool = False) -> None:
        """`sizes` [N, 2] are the images' (height, width)."""
        heights, widths = sizes.T
        self.shapes = np.log(widths / heights)
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.shapes))
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        order = order[np.argsort(self.shapes[order] + draw.normal(0, SHAPE_JITTER, len(order)), kind="stable")]
        for batch in draw.permutation(len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.shapes) // self.batch_size
        return -(-len(self.shapes) // self.batch_size)


def batches_of_equal_shape(shapes: np.ndarray, batch_size: int) -> list[list[int]]:
    """All indices of `shapes` [N, 2] in batches that share a shape exactly.

    For evaluation: no image is padded for another's sake, so what is found in it does not depend on its neighbours.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(shapes.tolist()):
        groups.setdefault((height, width), []).append(index)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]

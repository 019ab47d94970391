"""Draws the images of an epoch in batches of similar shape."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from retinanet.coco.annotations import owners_of_rows
from retinanet.data.dataset import CocoDataset
from retinanet.runtime.ranks import ALONE, Ranks

# Enough to mix images of nearly equal shape differently each epoch, too little to pair wide images with tall ones.
SHAPE_JITTER = 0.05
SIDE_STREAM = 2  # separates a batch's draws from others of the same seed, epoch and index; not 0, which NumPy ignores


class Draw(NamedTuple):
    """A batch to read: its epoch, its images and their size. The augmentation depends on the epoch and the index."""

    epoch: int
    indices: list[int]  # the k-th repeat of image i is i + k * N, for N images
    sides: tuple[int, int]  # (height, width) large enough for every image of the batch, on all ranks
    side: int | None = None  # the images' shorter side, if it was drawn too


class AspectRatioBasedSampler(Sampler[Draw]):
    """Draws the batches of one rank; the batches of an epoch depend only on (seed, epoch).

    The images are sorted by aspect ratio with a little noise, so that images of similar shape share a batch and little
    is padded; images of equal shape are in random order. The batches are then shuffled. Every image appears exactly
    once per epoch (or as often as its factor says), on one of the ranks; with `drop_last`, the few images that don't
    fill a batch are left out, different ones in each epoch. The ranks share each global batch, so all have the same
    number of batches; if a global batch is not full, a rank's share may be empty. All images of a global batch have the
    same shorter side, which depends only on (seed, epoch, batch). With `accumulate`, a rank's share of a global batch
    comes in that many batches, one after the other.
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
        factors: np.ndarray | None = None,
    ) -> None:
        """Stores the settings.

        `sizes` [N, 2] are the images' (height, width), and `batch_size` is the number of images per batch. `factors`
        [N], whose sum is a whole number, say how often each image appears per epoch (default: once). `train_sides` are
        the shorter sides to draw from, and `sizes_at` returns the sizes of given images at one of these sides.
        """
        assert not train_sides or sizes_at is not None
        heights, widths = sizes.T
        self.train_sides, self.sizes_at = train_sides, sizes_at
        self.sizes, self.shapes = sizes, np.log(widths / heights)
        self.batch_size, self.seed, self.drop_last = batch_size * ranks.size * accumulate, seed, drop_last
        self.accumulate, self.rank, self.num_ranks = accumulate, ranks.rank, ranks.size
        self.epoch, self.first_batch = 0, 0
        self.factors = factors
        self.num_drawn = images_of_epoch(len(sizes), factors)

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Makes the next iteration start with the given batch of `epoch`."""
        self.epoch, self.first_batch = epoch, batch

    def __iter__(self) -> Iterator[Draw]:
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.shapes))
        indices = order if self.factors is None else self._repeated(order, self.factors, draw)
        if self.drop_last:
            indices = indices[: len(self) * self.batch_size]
        shapes = self.shapes[indices % len(self.shapes)]
        indices = indices[np.argsort(shapes + draw.normal(0, SHAPE_JITTER, len(shapes)), kind="stable")]
        for batch in draw.permutation(len(self))[self.first_batch :]:
            drawn = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            rows = drawn % len(self.shapes)
            side = self._side(int(batch))
            sizes = self.sizes[rows] if side is None or self.sizes_at is None else self.sizes_at(rows, side)
            height, width = sizes.max(axis=0).tolist()
            for part in range(self.accumulate):
                share = drawn[part * self.num_ranks + self.rank :: self.accumulate * self.num_ranks]
                yield Draw(self.epoch, share.tolist(), (height, width), side)

    def _repeated(self, order: np.ndarray, factors: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Returns the images in `order`, each repeated as often as its factor says, in a new random order."""
        counts = drawn_counts(factors[order], draw.random())
        again = np.arange(self.num_drawn) - np.repeat(np.cumsum(counts) - counts, counts)  # 0 at first occurrence
        return draw.permutation(np.repeat(order, counts) + len(order) * again)

    def _side(self, batch: int) -> int | None:
        if not self.train_sides:
            return None
        draw = np.random.default_rng([self.seed, self.epoch, batch, SIDE_STREAM])
        return self.train_sides[int(draw.integers(len(self.train_sides)))]

    def __len__(self) -> int:
        """Returns the number of global batches per epoch; each holds the images of all ranks for one optimiser step."""
        if self.drop_last:
            return self.num_drawn // self.batch_size
        return -(-self.num_drawn // self.batch_size)


def repeat_factors(dataset: CocoDataset, threshold: float) -> np.ndarray | None:
    """Returns the LVIS repeat factors, that is, how often an epoch shows each image: float64 [N], at least 1.

    The factor of a class that occurs in a fraction f of the images is max(1, sqrt(threshold / f)), and an image has the
    factor of its rarest class (https://arxiv.org/abs/1908.03195). All factors are then multiplied by a number below
    1 + 1/N, so that their sum is a whole number. With a threshold of 0, returns None: each image appears once.
    """
    if not threshold:
        return None
    annotations, learned = dataset.annotations, np.flatnonzero(dataset.is_learned)
    num_images, num_classes = len(dataset), len(annotations.class_names)
    images = owners_of_rows(annotations, learned)
    pairs = np.unique(images * num_classes + annotations.labels[learned])  # an image and a class in it
    of_images, of_classes = np.divmod(pairs, num_classes)
    shares = np.bincount(of_classes, minlength=num_classes) / num_images
    factors = np.ones(num_images)
    np.maximum.at(factors, of_images, np.sqrt(threshold / shares[of_classes]))
    total = factors.sum()
    return factors * (np.ceil(total - 1e-9) / total)


def images_of_epoch(num_images: int, factors: np.ndarray | None) -> int:
    """Returns how many images an epoch shows, repeats included."""
    return num_images if factors is None else round(float(factors.sum()))


def drawn_counts(factors: np.ndarray, offset: float) -> np.ndarray:
    """Returns how often each image is shown: int64 [N].

    Each factor is rounded up or down, so that the counts add up to the sum of the factors. `offset`, at least 0 and
    below 1, decides which factors are rounded up (systematic sampling).
    """
    total = images_of_epoch(len(factors), factors)
    places = np.floor(np.concatenate([[0.0], np.cumsum(factors)]) + offset).astype(int)
    places[-1] = total  # the sum is a whole number, except for rounding
    return np.diff(places.clip(max=total))


def batches_of_equal_shape(shapes: np.ndarray, batch_size: int) -> list[list[int]]:
    """Returns all indices of `shapes`, [N, 2] or [N, 2 x sides], in batches of exactly equal shape.

    In evaluation, no image is then padded to the size of another, so detections don't depend on the rest of the batch.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes.tolist()):
        groups.setdefault(tuple(shape), []).append(index)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]

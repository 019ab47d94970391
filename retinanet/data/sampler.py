"""Draws the images of an epoch in batches, with images of similar shape in each batch."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from retinanet.coco.annotations import owners_of_rows
from retinanet.data.dataset import CocoDataset, Window
from retinanet.runtime.ranks import ALONE, Ranks

# Enough to mix images of nearly equal shape differently each epoch, too little to pair wide images with tall ones.
SHAPE_JITTER = 0.05
SIDE_STREAM = 2  # separates a batch's draws from others of the same seed, epoch and index; not 0, which NumPy ignores


class Shown(NamedTuple):
    """Lists what an epoch shows: the images of a set and, in a run on tiles, also tiles of these images."""

    sizes: np.ndarray  # int32 [N, 2], (height, width) in the network's input
    factors: np.ndarray | None = None  # float64 [N], how often each is shown; the sum is a whole number (None: once)
    sizes_at: Callable[[np.ndarray, int], np.ndarray] | None = None  # returns the sizes of given rows at a shorter side
    windows: np.ndarray | None = None  # int64 [N, 5], the parts of images to show, see Window; None: N whole images

    @property
    def num_drawn(self) -> int:
        """Returns how many images the epoch shows, repeats included."""
        return len(self.sizes) if self.factors is None else round(float(self.factors.sum()))


class Draw(NamedTuple):
    """Describes a batch to read: epoch, images and size. An image's augmentation depends on its index and the epoch."""

    epoch: int
    indices: list[int]  # the k-th repeat of image or tile i is i + k * N, if the epoch shows N of them
    sides: tuple[int, int]  # (height, width) large enough for every image of the batch, on all ranks
    side: int | None = None  # the images' shorter side, if it was drawn too
    windows: list[Window] | None = None  # in a run on tiles: the parts of images to read


class AspectRatioBasedSampler(Sampler[Draw]):
    """Draws the batches of one rank; the batches of an epoch depend only on (seed, epoch).

    In a run on tiles, each epoch shows different tiles, and a different number of them; below, "image" includes tiles.

    The images are sorted by aspect ratio with a little noise, so that images of similar shape share a batch and need
    little padding; images of equal shape are in random order. The batches are then shuffled. Across the ranks, every
    image appears exactly once per epoch (or as often as its factor says); with `drop_last`, each epoch leaves out the
    few images, different ones each time, that would not fill a batch. The ranks share each global batch, so all have
    the same number of batches; if a global batch is not full, a rank's share may be empty. With `train_sides`, one
    shorter side is drawn for each global batch, depending only on (seed, epoch, batch). A rank's share of a global
    batch is split into `accumulate` consecutive batches.
    """

    def __init__(
        self,
        shown: Shown | Callable[[int], Shown],
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        *,
        accumulate: int = 1,
        ranks: Ranks = ALONE,
        train_sides: Sequence[int] = (),
    ) -> None:
        """Stores the settings.

        `shown` is one description for all epochs, or a function that returns the description of a given epoch.
        `batch_size` is the number of images per batch, and `train_sides` are the shorter sides to draw from.
        """
        self.always = shown if isinstance(shown, Shown) else None
        self.shown_in = lru_cache(maxsize=1)(shown) if callable(shown) else lambda _epoch: shown
        self.train_sides = train_sides
        self.batch_size, self.seed, self.drop_last = batch_size * ranks.size * accumulate, seed, drop_last
        self.accumulate, self.rank, self.num_ranks = accumulate, ranks.rank, ranks.size
        self.epoch, self.first_batch = 0, 0
        self.ends: list[int] = []  # the number of steps up to the end of each epoch, for the epochs counted so far

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Makes the next iteration start with the given batch of `epoch`."""
        self.epoch, self.first_batch = epoch, batch

    def __iter__(self) -> Iterator[Draw]:
        shown = self.shown_in(self.epoch)
        heights, widths = shown.sizes.T
        all_shapes = np.log(widths / heights)
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(all_shapes))
        indices = order if shown.factors is None else _repeated(order, shown.factors, draw)
        if self.drop_last:
            indices = indices[: len(self) * self.batch_size]
        shapes = all_shapes[indices % len(all_shapes)]
        indices = indices[np.argsort(shapes + draw.normal(0, SHAPE_JITTER, len(shapes)), kind="stable")]
        for batch in draw.permutation(len(self))[self.first_batch :]:
            drawn = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            side = self._side(int(batch))
            sizes = _sizes_at(shown, drawn % len(all_shapes), side)
            height, width = sizes.max(axis=0).tolist()
            for part in range(self.accumulate):
                share = drawn[part * self.num_ranks + self.rank :: self.accumulate * self.num_ranks]
                yield Draw(self.epoch, share.tolist(), (height, width), side, _windows(shown, share % len(all_shapes)))

    def _side(self, batch: int) -> int | None:
        if not self.train_sides:
            return None
        draw = np.random.default_rng([self.seed, self.epoch, batch, SIDE_STREAM])
        return self.train_sides[int(draw.integers(len(self.train_sides)))]

    def __len__(self) -> int:
        """Returns the number of global batches of the current epoch.

        Each holds the images of all ranks for one optimiser step.
        """
        return self._num_batches(self.epoch)

    def _num_batches(self, epoch: int) -> int:
        num_drawn = self.shown_in(epoch).num_drawn
        return num_drawn // self.batch_size if self.drop_last else -(-num_drawn // self.batch_size)

    def first_steps(self, epochs: int) -> Sequence[int]:
        """Returns the index of the first step of each epoch from 0 to `epochs`, inclusive."""
        if self.always:
            return range(0, (epochs + 1) * len(self), len(self))
        while len(self.ends) < epochs:
            self.ends.append((self.ends or [0])[-1] + self._num_batches(len(self.ends)))
        return [0, *self.ends[:epochs]]


def _sizes_at(shown: Shown, rows: np.ndarray, side: int | None) -> np.ndarray:
    if side is None:
        return shown.sizes[rows]
    assert shown.sizes_at is not None
    return shown.sizes_at(rows, side)


def _windows(shown: Shown, indices: np.ndarray) -> list[Window] | None:
    return None if shown.windows is None else [Window(*window) for window in shown.windows[indices].tolist()]


def _repeated(order: np.ndarray, factors: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Repeats each image of `order` as often as its factor says, and shuffles the result."""
    counts = drawn_counts(factors[order], draw.random())
    again = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0 at first occurrence
    return draw.permutation(np.repeat(order, counts) + len(order) * again)


def repeat_factors(dataset: CocoDataset, threshold: float) -> np.ndarray | None:
    """Returns each image's LVIS repeat factor, how often an epoch shows it on average: float64 [N], at least 1.

    An image has the factor of its rarest class (https://arxiv.org/abs/1908.03195), scaled by whole_sum. With a
    threshold of 0, returns None: each image appears once.
    """
    if not threshold:
        return None
    rows = np.flatnonzero(dataset.is_learned)
    factors = np.ones(len(dataset))
    of_classes = class_factors(dataset, threshold)[dataset.annotations.labels[rows]]
    np.maximum.at(factors, owners_of_rows(dataset.annotations, rows), of_classes)
    return whole_sum(factors)


def class_factors(dataset: CocoDataset, threshold: float) -> np.ndarray:
    """Returns each class's repeat factor, max(1, sqrt(threshold / f)) if a fraction f of images has the class: [C]."""
    annotations, learned = dataset.annotations, np.flatnonzero(dataset.is_learned)
    num_classes = len(annotations.class_names)
    pairs = np.unique(owners_of_rows(annotations, learned) * num_classes + annotations.labels[learned])
    counts = np.bincount(pairs % num_classes, minlength=num_classes)  # of the images with each class
    return np.sqrt(threshold / (counts.clip(min=1) / len(dataset))).clip(min=1)


def whole_sum(factors: np.ndarray) -> np.ndarray:
    """Returns the `factors` [N], multiplied by a number below 1 + 1/N, so that their sum is a whole number."""
    total = factors.sum()
    return factors * (np.ceil(total - 1e-9) / total)


def drawn_counts(factors: np.ndarray, offset: float) -> np.ndarray:
    """Returns how often each image is shown: int64 [N].

    Each factor is rounded up or down, so that the counts add up to the sum of the factors. `offset`, at least 0 and
    below 1, decides which factors are rounded up (systematic sampling).
    """
    total = round(float(factors.sum()))
    places = np.floor(np.concatenate([[0.0], np.cumsum(factors)]) + offset).astype(int)
    places[-1] = total  # the sum is a whole number, except for rounding
    return np.diff(places.clip(max=total))


def batches_of_equal_shape(shapes: np.ndarray, batch_size: int) -> list[list[int]]:
    """Returns batches of indices into `shapes`, [N, 2] or [N, 2 x sides], such that shapes within a batch are equal.

    In evaluation, no image is then padded to the size of another, so detections don't depend on the rest of the batch.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes.tolist()):
        groups.setdefault(tuple(shape), []).append(index)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]

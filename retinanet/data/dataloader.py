"""Loads batches in worker processes, for training and for evaluation."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retinanet.data.batches import BadImage, Loaded, Sample, loaded_from
from retinanet.data.dataset import CocoDataset, Window
from retinanet.data.sampler import AspectRatioBasedSampler, Draw, Shown, batches_of_equal_shape, repeat_factors
from retinanet.data.tiles import TiledEpochs
from retinanet.data.transforms import (
    flip,
    padded_shape,
    padded_sizes,
    resize,
    resized_sizes,
    scale_boxes,
    to_tensor,
)
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.signals import STOP, ignore_in_worker
from retinanet.settings.shared import FROM_ORIGINAL, Augmentation, Tiles

LOCKS = 5  # the most locks that PyTorch's loader creates for a worker, a queue or an event
CPU = torch.device("cpu")
DEFAULT_AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class LoaderSettings:
    """The batch size, workers, device, timeout and padding of a loader."""

    batch_size: int
    workers: int = 0
    device: torch.device = CPU  # the device that the batches are for
    timeout: float = 0  # seconds that a worker may take for a batch; 0 means no limit
    padded_sides: tuple[int, ...] | None = None  # to pad training batches to, see padded_shape; None: multiples of 32


class TrainingBatches(Dataset[Loaded]):
    """Reads the batches that a sampler draws. Augmentation never makes an image larger than it would otherwise be.

    The augmentation of an image depends only on (seed, epoch, index) and on the batch's shorter side.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        seed: int,
        augmentation: Augmentation = DEFAULT_AUGMENTATION,
        sides: Sequence[int] | None = None,
    ) -> None:
        """Stores the settings. For `sides`, see padded_shape."""
        self.dataset, self.seed, self.augmentation, self.sides = dataset, seed, augmentation, sides
        if augmentation.augment:  # before workers fork, and only if used: torchvision takes 1.5 s to import
            import retinanet.data.augmentation  # noqa: F401

    def __getitem__(self, draw: Draw) -> Loaded:
        windows: Sequence[Window | None] = draw.windows or [None] * len(draw.indices)
        parts = zip(draw.indices, windows, strict=True)
        samples = [self.sample(draw.epoch, index, draw.side, window) for index, window in parts]
        return loaded_from(samples, padded_shape(draw.sides, self.sides))

    def sample(
        self, epoch: int, index: int, side: int | None = None, window: Window | None = None
    ) -> Sample | BadImage:
        """Returns the training sample of an image or a part of it, for a batch resized to a shorter side of `side`.

        By default, `side` is the dataset's shorter side. For `index`, see Draw.
        """
        part = index % len(self.dataset) if window is None else window
        try:
            sample = self._augmented(part, side, (self.seed, epoch, index))
        except UserError as fault:
            return BadImage(str(fault))
        if np.random.default_rng([self.seed, epoch, index]).random() < self.augmentation.flip:
            image, boxes = flip(sample.image, sample.boxes)
            sample = sample._replace(image=image, boxes=boxes)
        return sample

    def _augmented(self, part: int | Window, side: int | None, key: tuple[int, int, int]) -> Sample:
        names = self.augmentation.augment or ()
        is_original = not FROM_ORIGINAL.isdisjoint(names)
        sample = self.dataset.read_original(part) if is_original else self.dataset.read(part, side)
        if not names:
            return sample
        from retinanet.data.augmentation import augment

        return augment(sample, self.dataset.size_at(part, side), names, key)


def training_loader(
    dataset: CocoDataset,
    loading: LoaderSettings,
    *,
    seed: int,
    augmentation: Augmentation = DEFAULT_AUGMENTATION,
    repeat_threshold: float = 0.0,
    tiles: Tiles | None = None,
    drop_last: bool = False,
    accumulate: int = 1,
    ranks: Ranks = ALONE,
) -> tuple[DataLoader[Loaded], AspectRatioBasedSampler]:
    """Returns a loader for a rank's training batches, and its sampler, whose `start_at` sets the next batch."""
    sampler = AspectRatioBasedSampler(
        shown_of(dataset, seed, repeat_threshold, tiles),
        loading.batch_size,
        seed,
        drop_last,
        accumulate=accumulate,
        ranks=ranks,
        train_sides=augmentation.train_sides or (),
    )
    batches = TrainingBatches(dataset, seed, augmentation, loading.padded_sides)
    how = {"sampler": sampler, "batch_size": None, "collate_fn": _as_it_is}
    return _loader(batches, loading, **how), sampler


def shown_of(
    dataset: CocoDataset, seed: int, repeat_threshold: float, tiles: Tiles | None
) -> Shown | Callable[[int], Shown]:
    """Returns what every epoch shows or, with `tiles`, a function that returns what a given epoch shows."""
    if tiles:
        assert dataset.min_visible is not None
        return TiledEpochs(dataset, tiles, dataset.min_visible, seed, repeat_threshold).shown_in
    return Shown(dataset.sizes, repeat_factors(dataset, repeat_threshold), dataset.sizes_at)


class AtEachSide(Dataset[list[Sample | BadImage]]):
    """A dataset's images at several sizes, decoded once: an item has one sample for each array [N, 2] in `sizes`."""

    def __init__(self, dataset: CocoDataset, sizes: Sequence[np.ndarray]) -> None:
        self.dataset, self.sizes = dataset, sizes

    def __getitem__(self, index: int) -> list[Sample | BadImage]:
        try:
            original = to_tensor(self.dataset.original(index))
        except UserError as fault:
            return [BadImage(str(fault)) for _ in self.sizes]
        return [self._sample(index, original, sizes[index].tolist()) for sizes in self.sizes]

    def _sample(self, index: int, original: Tensor, size: list[int]) -> Sample:
        boxes, labels = self.dataset.objects(index)
        boxes, scale = scale_boxes(boxes, original.shape[1:], size)
        return Sample(resize(original, size), boxes, labels, scale, index)


def evaluation_loader(
    dataset: CocoDataset,
    loading: LoaderSettings,
    *,
    test_sides: Sequence[tuple[int, int]] | None = None,
    ranks: Ranks = ALONE,
) -> DataLoader[list[Loaded]]:
    """Returns a loader that yields each image once, in batches, at all `test_sides`; each rank gets its share of them.

    `test_sides` are pairs (shorter side, limit on the longer side), by default only the pair of `dataset`. For
    each pair, the images of a batch have equal padded shapes, so no image is padded because of another.
    """
    original = dataset.annotations.sizes
    sizes = [dataset.sizes] if test_sides is None else [resized_sizes(original, *sides) for sides in test_sides]
    shapes = np.concatenate([padded_sizes(side_sizes) for side_sizes in sizes], axis=1)  # [N, 2 x sides]
    batches = batches_of_equal_shape(shapes, loading.batch_size)[ranks.rank :: ranks.size]
    at_each = AtEachSide(dataset, sizes)
    return _loader(at_each, loading, batch_sampler=batches, collate_fn=_loaded_at_each_side)


class Originals(Dataset[Sample | BadImage]):
    """A dataset's images at their original size."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | BadImage:
        try:
            return self.dataset.read_original(index)
        except UserError as fault:
            return BadImage(str(fault))


def original_loader(
    dataset: CocoDataset, loading: LoaderSettings, ranks: Ranks = ALONE
) -> DataLoader[Sample | BadImage]:
    """Returns a loader that yields a rank's share of the images, one by one, at their original size."""
    rows = range(ranks.rank, len(dataset), ranks.size)
    return _loader(Originals(dataset), loading, sampler=rows, batch_size=None, collate_fn=_as_it_is)


def _loaded_at_each_side(samples: Sequence[Sequence[Sample | BadImage]]) -> list[Loaded]:
    return [loaded_from(of_side) for of_side in zip(*samples, strict=True)]


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Any:
        # Fails if shared memory has no room for the locks: an iterator that fails half-built prints a second error.
        _ = [multiprocessing.Lock() for _ in range(LOCKS * (self.num_workers + 2))] if self.num_workers else []
        with STOP.unbroken():  # while workers are forked: callbacks of the fork hold locks, and swallow exceptions
            return super().__iter__()


def _loader(dataset: Dataset[Any], loading: LoaderSettings, **how: Any) -> DataLoader[Any]:
    # Each worker keeps PyTorch's default of one thread, because it works on one image at a time.
    return _Loader(
        dataset,
        num_workers=loading.workers,
        pin_memory=loading.device.type == "cuda",
        persistent_workers=loading.workers > 0,
        timeout=loading.timeout if loading.workers else 0,
        worker_init_fn=ignore_in_worker,
        # Otherwise the loader would draw from PyTorch's global generator at each epoch, and again when resuming.
        generator=torch.Generator(),
        **how,
    )


def _as_it_is(loaded: Any) -> Any:
    return loaded

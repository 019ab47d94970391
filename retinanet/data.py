"""The data set: samples read from disk, batches collated, in worker processes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retinanet.annotations import Annotations
from retinanet.errors import UserError
from retinanet.images import MAX_PIXELS, check_image, read_image
from retinanet.samplers import AspectRatioBasedSampler, batches_of_equal_shape
from retinanet.structures import Batch, Sample, Targets
from retinanet.transforms import flip, pad_and_stack, padded_size, resize, resized_size

FLIP_PROBABILITY = 0.5


class BadImage(NamedTuple):
    """Stands for a sample that can't be read. An exception would reach the main process as a worker's traceback."""

    message: str


class CocoDataset(Dataset[Sample | BadImage]):
    """The images of a COCO annotation file, resized, with the objects to be found in them.

    Crowds are no objects to learn. Boxes are clipped to their image, and those without area are dropped;
    `num_crowds` and `num_empty` count both.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_folder: Path,
        min_side: int,
        max_side: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.annotations = annotations
        self.image_folder = image_folder
        self.max_pixels = max_pixels
        self.sizes = [resized_size(int(h), int(w), min_side, max_side) for h, w in annotations.sizes]

        corners = annotations.boxes.copy()
        corners[:, 2:] += corners[:, :2]
        owners = np.repeat(np.arange(len(self)), np.diff(annotations.first))
        corners = corners.clip(0, np.tile(annotations.sizes[owners][:, ::-1], 2))
        empty = (corners[:, 2:] <= corners[:, :2]).any(axis=1)
        self.num_crowds = int(annotations.crowds.sum())
        self.num_empty = int((empty & ~annotations.crowds).sum())
        learned = ~annotations.crowds & ~empty
        self.boxes = torch.from_numpy(corners[learned]).float()  # [objects, 4], original pixels
        self.labels = torch.from_numpy(annotations.labels[learned])  # [objects]
        self.first = np.searchsorted(owners[learned], np.arange(len(self) + 1)).tolist()

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, index: int) -> Path:
        return self.image_folder / self.annotations.file_names[index]

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Boxes [objects, 4] in original pixels and labels [objects] of an image."""
        rows = slice(self.first[index], self.first[index + 1])
        return self.boxes[rows], self.labels[rows]

    def read(self, index: int) -> Sample:
        """The sample; UserError names the file that can't be read."""
        height, width = self.annotations.sizes[index].tolist()
        image = read_image(self.path(index), (height, width), self.max_pixels)
        boxes, labels = self.objects(index)
        image, boxes, scale = resize(image, boxes, self.sizes[index])
        return Sample(image, boxes, labels, scale, int(self.annotations.image_ids[index]))

    def __getitem__(self, index: int) -> Sample | BadImage:
        try:
            return self.read(index)
        except UserError as fault:
            return BadImage(str(fault))

    def check_headers(self) -> None:
        """UserError at the first image whose header can't be read or has another size than its annotation."""
        for index, (height, width) in enumerate(self.annotations.sizes.tolist()):
            check_image(self.path(index), (height, width), self.max_pixels)

    def require_images(self) -> None:
        """UserError if an image file is missing, found by listing folders rather than by asking for each file."""
        listed: dict[Path, set[str]] = {}
        missing = []
        for index in range(len(self)):
            path = self.path(index)
            if path.parent not in listed:
                listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            if path.name not in listed[path.parent]:
                missing.append(path)
        if missing:
            raise UserError(
                f"{missing[0]}: no such image, though {self.annotations.path} lists it ({len(missing)} of {len(self)} "
                "are missing). Put the images there, or take them out of the annotations."
            )


class FlippingDataset(Dataset[Sample | BadImage]):
    """Another data set's samples, mirrored or not as a function of (seed, epoch, index)."""

    def __init__(self, dataset: CocoDataset, seed: int, probability: float = FLIP_PROBABILITY) -> None:
        self.dataset, self.seed, self.probability = dataset, seed, probability

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadImage:
        epoch, index = key
        sample = self.dataset[index]
        if isinstance(sample, Sample) and np.random.default_rng([self.seed, epoch, index]).random() < self.probability:
            image, boxes = flip(sample.image, sample.boxes)
            sample = sample._replace(image=image, boxes=boxes)
        return sample


def collate(samples: Sequence[Sample | BadImage]) -> Batch:
    """One batch of the samples that could be read, with the messages of those that could not."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    most = max([1, *(len(sample.labels) for sample in good)])  # M
    boxes = torch.zeros(len(good), most, 4)
    labels = torch.full((len(good), most), -1)
    for row, sample in enumerate(good):
        boxes[row, : len(sample.boxes)] = sample.boxes
        labels[row, : len(sample.labels)] = sample.labels
    return Batch(
        images=pad_and_stack([sample.image for sample in good]),
        targets=Targets(boxes, labels),
        sizes=torch.tensor([sample.image.shape[1:] for sample in good]).reshape(-1, 2),
        scales=torch.stack([sample.scale for sample in good]) if good else torch.zeros(0, 2),
        image_ids=torch.tensor([sample.image_id for sample in good], dtype=torch.int64),
        bad=[sample.message for sample in samples if isinstance(sample, BadImage)],
    )


def training_loader(
    dataset: CocoDataset,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    pin_memory: bool,
    drop_last: bool = False,
    flip_probability: float = FLIP_PROBABILITY,
) -> tuple[DataLoader[Any], AspectRatioBasedSampler]:
    """A loader of training batches, and its sampler, whose `set_epoch` says which epoch's."""
    sampler = AspectRatioBasedSampler(dataset.sizes, batch_size, seed, drop_last)
    flipping = FlippingDataset(dataset, seed, flip_probability)
    return _loader(flipping, sampler, workers, pin_memory), sampler


def evaluation_loader(dataset: CocoDataset, *, batch_size: int, workers: int, pin_memory: bool) -> DataLoader[Any]:
    """A loader of each image once, those of equal padded shape together."""
    batches = batches_of_equal_shape([padded_size(*size) for size in dataset.sizes], batch_size)
    return _loader(dataset, batches, workers, pin_memory)


def _loader(dataset: Dataset[Any], batch_sampler: Any, workers: int, pin_memory: bool) -> DataLoader[Any]:
    # Each worker keeps PyTorch's default of one thread: there is one image per worker at a time to work on.
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`, copied without waiting where its memory is pinned."""
    targets = Targets(*(tensor.to(device, non_blocking=True) for tensor in batch.targets))
    images, sizes, scales = (t.to(device, non_blocking=True) for t in (batch.images, batch.sizes, batch.scales))
    return batch._replace(images=images, targets=targets, sizes=sizes, scales=scales)

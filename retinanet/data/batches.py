"""Defines samples, which are images with their boxes, and collates them into batches."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.data.transforms import pad_and_stack, padded_shape
from retinanet.detector.structures import Targets


class Sample(NamedTuple):
    """An image, or a part of it, with its boxes, before padding."""

    image: Tensor  # uint8 [3, height, width]
    boxes: Tensor  # float32 [objects, 4], including crowd regions if the dataset keeps them
    labels: Tensor  # int64 [objects]
    scale: Tensor  # float32 [2], network pixels per original pixel: (vertical, horizontal)
    row: int  # the index of the image in its set


class BadImage(NamedTuple):
    """Replaces a sample that can't be read: an exception would reach the main process as a worker's traceback."""

    message: str


class Batch(NamedTuple):
    """Padded images with their targets, sizes and scales."""

    images: Tensor  # uint8 [B, 3, H, W], padded at the right and the bottom
    targets: Targets
    sizes: Tensor  # int64 [B, 2], (height, width) of each image without its padding
    scales: Tensor  # float32 [B, 2]
    rows: Tensor  # int64 [B], the indices of the images in their set; never on a GPU


class Loaded(NamedTuple):
    """A batch, and a message for each image that is left out because it could not be read."""

    batch: Batch
    bad: list[str]


def loaded_from(samples: Sequence[Sample | BadImage], shape: tuple[int, int] | None = None) -> Loaded:
    """Returns the batch of the samples that could be read, and the messages of the others. For `shape`, see collate."""
    batch = collate([sample for sample in samples if isinstance(sample, Sample)], shape)
    return Loaded(batch, [sample.message for sample in samples if isinstance(sample, BadImage)])


def collate(samples: Sequence[Sample], shape: tuple[int, int] | None = None) -> Batch:
    """Returns one batch of the samples. `shape` is its padded (H, W), by default the smallest that fits."""
    if shape is None:
        shape = padded_shape([max((sample.image.shape[axis] for sample in samples), default=0) for axis in (1, 2)])
    most = max([1, *(len(sample.labels) for sample in samples)])  # M
    boxes = torch.zeros(len(samples), most, 4)
    labels = torch.full((len(samples), most), -1)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = sample.boxes
        labels[row, : len(sample.labels)] = sample.labels
    return Batch(
        images=pad_and_stack([sample.image for sample in samples], shape),
        targets=Targets(boxes, labels),
        sizes=torch.tensor([sample.image.shape[1:] for sample in samples]).reshape(-1, 2),
        scales=torch.stack([sample.scale for sample in samples]) if samples else torch.zeros(0, 2),
        rows=torch.tensor([sample.row for sample in samples], dtype=torch.int64),
    )

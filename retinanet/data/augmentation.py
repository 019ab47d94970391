"""Augments training images at random, in uint8, and transforms their boxes to match."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from retinanet.data.batches import Sample
from retinanet.detector.structures import CROWD, MEAN
from retinanet.runtime.device import one_thread
from retinanet.settings.shared import CROP, JITTER, PHOTOMETRIC, ZOOM_OUT

JITTER_SCALES = (0.1, 2.0)  # "large-scale jittering" of https://arxiv.org/abs/2012.07177
LEAST_TO_CROP = 4  # pixels of the shorter side; RandomIoUCrop may divide by zero if 0.3 of a side is less than a pixel
FILL = [float(round(part)) for part in MEAN]
# Separates these random numbers from others with the same seed, epoch and image; not 0, which SeedSequence ignores.
AUGMENTATION_STREAM = 1
Parts = tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]  # an image, its boxes and their labels


def augment(sample: Sample, size: tuple[int, int], names: Sequence[str], key: tuple[int, int, int]) -> Sample:
    """Applies the augmentations `names` to `sample`, with random numbers seeded by `key` (seed, epoch, index).

    `sample` has its original size if one of FROM_ORIGINAL is among the names, otherwise `size` (height, width); the
    result always fits in `size`. Boxes keep their labels, including CROWD. Boxes that are cropped away, or become less
    than a pixel wide or high, are dropped. Colours are changed after the image is shrunk, because that is cheaper, but
    before the border is added, so that the border keeps the mean colour, which normalises to about zero.
    """
    height, width = sample.image.shape[1:]
    boxes = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(height, width))
    parts: Parts = (tv_tensors.Image(sample.image), boxes, sample.labels)
    with _draws_from(key):
        for name, change in ORDER:
            if name in names:
                parts = change(parts, size)
    image, boxes, labels = parts if set(names) == {PHOTOMETRIC} else _without_lost(parts)
    scale = sample.scale * (torch.tensor(size) / torch.tensor([height, width]))
    plain_image, plain_boxes = (tensor.as_subclass(Tensor) for tensor in (image, boxes))
    return sample._replace(image=plain_image, boxes=plain_boxes, labels=labels, scale=scale)


@contextmanager
def _draws_from(key: tuple[int, int, int]) -> Iterator[None]:
    """Seeds PyTorch's global CPU generator, from which torchvision draws, with `key`, and restores it after the block.

    Inside the block, PyTorch uses one thread, because an image's mean grey is rounded differently with more threads.
    """
    seed = int(np.random.SeedSequence([*key, AUGMENTATION_STREAM]).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        yield


def _jitter(parts: Parts, size: tuple[int, int]) -> Parts:
    """Resizes the image to `size` times a random scale, then crops it at a random place if it exceeds `size`.

    v2.ScaleJitter would swap height and width, and it fails if a side is shorter than a pixel.
    """
    scale = torch.empty(()).uniform_(*JITTER_SCALES).item()
    height, width = (max(1, round(side * scale)) for side in size)
    crop_size = min(height, size[0]), min(width, size[1])
    return v2.RandomCrop(crop_size)(*_resized(parts, (height, width)))


def _crop(parts: Parts, size: tuple[int, int]) -> Parts:
    """Crops most images to a part that contains the centre of an object, and resizes the result to fit in `size`."""
    image, boxes, _ = parts
    # Without an object, torchvision would try many crops in vain.
    if len(boxes) and min(image.shape[1:]) >= LEAST_TO_CROP:
        parts = _IoUCrop(parts[2] == CROWD)(*parts)
    height, width = parts[0].shape[1:]
    scale = min(size[0] / height, size[1] / width)
    return _resized(parts, (max(1, round(height * scale)), max(1, round(width * scale))))


class _IoUCrop(v2.RandomIoUCrop):
    """Crops like torchvision, dropping boxes whose centre is cut off, except for crowd regions.

    If an object's centre is cut off, the rest of its box may show only background, but a part of a crowd region is
    still a crowd region.
    """

    def __init__(self, is_crowd: Tensor) -> None:
        super().__init__()
        self.is_crowd = is_crowd

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params = super().make_params(flat_inputs)
        return params and params | {"is_within_crop_area": params["is_within_crop_area"] | self.is_crowd}


def _distort(parts: Parts, size: tuple[int, int]) -> Parts:
    return v2.RandomPhotometricDistort()(*parts)


def _zoom_out(parts: Parts, size: tuple[int, int]) -> Parts:
    """Shrinks an image with probability 0.5, each side to no less than a quarter, and pads it with the mean colour."""
    height, width = parts[0].shape[1:]
    return _resized(v2.RandomZoomOut(fill=FILL)(*parts), (height, width))


def _pad(parts: Parts, size: tuple[int, int]) -> Parts:
    """Places the image at a random position on a canvas of `size`, filled with the mean colour."""
    return v2.RandomCrop(size, pad_if_needed=True, fill=FILL)(*parts)


def _resized(parts: Parts, size: tuple[int, int]) -> Parts:
    return v2.Resize(list(size), antialias=True)(*parts)


def _without_lost(parts: Parts) -> Parts:
    return _sanitize(*v2.ClampBoundingBoxes()(*parts))


def _labels(parts: Parts) -> Tensor:
    return parts[2]


_sanitize: Callable[..., Parts] = v2.SanitizeBoundingBoxes(labels_getter=_labels)
ORDER: tuple[tuple[str, Callable[[Parts, tuple[int, int]], Parts]], ...] = (
    *((JITTER, _jitter), (CROP, _crop)),
    (PHOTOMETRIC, _distort),
    *((ZOOM_OUT, _zoom_out), (JITTER, _pad)),
)

"""Changes training images at random, in uint8, and applies the same changes to their boxes exactly."""

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
from retinanet.settings.shared import CROP, JITTER, PHOTOMETRIC, ZOOM_OUT

JITTER_SCALES = (0.1, 2.0)  # "large-scale jittering" of https://arxiv.org/abs/2012.07177
LEAST_TO_CROP = 4  # pixels of the shorter side; RandomIoUCrop may divide by zero if 0.3 of a side is less than a pixel
FILL = [float(round(part)) for part in MEAN]
# Separates these draws from others of the same seed, epoch and image; not 0, which SeedSequence ignores.
AUGMENTATION_STREAM = 1
Parts = tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]  # an image, its boxes and their labels


def augment(sample: Sample, size: tuple[int, int], names: Sequence[str], key: tuple[int, int, int]) -> Sample:
    """Applies the augmentations `names` to `sample`, drawn from `key` (seed, epoch, index). The result fits in `size`.

    `sample` is in its original size if one of FROM_ORIGINAL is among the names, else in `size` (height, width). Labels
    of any value stay with their boxes; boxes that are cut off, or have less than a pixel left, are dropped. Colours
    change when the image is small, and before it gets a border, which keeps the mean colour: zero to the network.
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
    """Seeds PyTorch's global CPU generator, which torchvision draws from, with `key`; restores it afterwards.

    With one thread meanwhile: the last digits of a picture's mean grey depend on the number of threads.
    """
    threads = torch.get_num_threads()
    seed = int(np.random.SeedSequence([*key, AUGMENTATION_STREAM]).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the GPUs' too
        if threads > 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if threads > 1:
                torch.set_num_threads(threads)


def _jitter(parts: Parts, size: tuple[int, int]) -> Parts:
    """Resizes to `size` times a random scale, then crops at a random place what is larger than `size`.

    v2.ScaleJitter would swap height and width, and fails at sides of less than a pixel.
    """
    scale = torch.empty(()).uniform_(*JITTER_SCALES).item()
    height, width = (max(1, round(side * scale)) for side in size)
    crop_size = min(height, size[0]), min(width, size[1])
    return v2.RandomCrop(crop_size)(*_resized(parts, (height, width)))


def _crop(parts: Parts, size: tuple[int, int]) -> Parts:
    """Crops to a part of the image that holds at least the centre of an object, as large as fits in `size`."""
    image, boxes, _ = parts
    # Without an object, torchvision's many attempts find no crop.
    if len(boxes) and min(image.shape[1:]) >= LEAST_TO_CROP:
        parts = _IoUCrop(parts[2] == CROWD)(*parts)
    height, width = parts[0].shape[1:]
    scale = min(size[0] / height, size[1] / width)
    return _resized(parts, (max(1, round(height * scale)), max(1, round(width * scale))))


class _IoUCrop(v2.RandomIoUCrop):
    """Crops as torchvision does, which drops boxes whose centre is cut off, but keeps crowd regions.

    What is left of an object without its centre may be background; what is left of a crowd region is still one.
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
    """Shrinks half of the images, to no less than a quarter of each side, in a mean-coloured one of the same size."""
    height, width = parts[0].shape[1:]
    return _resized(v2.RandomZoomOut(fill=FILL)(*parts), (height, width))


def _pad(parts: Parts, size: tuple[int, int]) -> Parts:
    """Places the image at random in a mean-coloured image of `size`."""
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

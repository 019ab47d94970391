"""Random changes of a training image, on uint8, which its boxes follow exactly."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from retinanet.data.settings import CROP, JITTER, PHOTOMETRIC, ZOOM_OUT
from retinanet.detector.structures import CROWD, MEAN, Sample

JITTER_SCALES = (0.1, 2.0)  # "large-scale jittering" of https://arxiv.org/abs/2012.07177
LEAST_TO_CROP = 4  # pixels of a side; RandomIoUCrop may divide by zero where 0.3 of a side is no pixel
FILL = [float(round(part)) for part in MEAN]
AUGMENTATION_STREAM = (
    1  # tells these draws from others of the same seed, epoch and image; not 0, which SeedSequence ignores
)
Parts = tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]  # an image, its boxes and their labels


def augment(sample: Sample, size: tuple[int, int], names: Sequence[str], key: tuple[int, int, int]) -> Sample:
    """What the augmentations `names` make of a sample, as a function of `key` (seed, epoch, index).

    `sample` is in its original size if one of FROM_ORIGINAL is among the names, else in `size` (height, width), which
    the outcome fills or fits in. Labels of any value go with their boxes; boxes that are cut off, or of which less than
    a pixel is left, are dropped. Colours are changed when the image is small, and before it gets a border: that keeps
    the mean colour, which is zero to the network.
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
    """PyTorch's global generator of the CPU, from which torchvision draws, begins at `key`; then it is as it was.

    One thread works meanwhile: the mean of a picture's greys depends in its last digits on how many share it.
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
    """Resized to `size` times a scale, then cut, at a random place, where it is larger than `size`.

    v2.ScaleJitter would exchange height and width, and can't make sides of less than a pixel one.
    """
    scale = torch.empty(()).uniform_(*JITTER_SCALES).item()
    height, width = (max(1, round(side * scale)) for side in size)
    kept = min(height, size[0]), min(width, size[1])
    return v2.RandomCrop(kept)(*_resized(parts, (height, width)))


def _crop(parts: Parts, size: tuple[int, int]) -> Parts:
    """A part of the image, around the centre of an object at least, as large as fits in `size`."""
    image, boxes, _ = parts
    # Where there is no object torchvision finds no crop, after many trials.
    if len(boxes) and min(image.shape[1:]) >= LEAST_TO_CROP:
        parts = _IoUCrop(parts[2] == CROWD)(*parts)
    height, width = parts[0].shape[1:]
    scale = min(size[0] / height, size[1] / width)
    return _resized(parts, (max(1, round(height * scale)), max(1, round(width * scale))))


class _IoUCrop(v2.RandomIoUCrop):
    """torchvision's, which marks boxes whose centre is cut off to be dropped, but for crowd regions.

    The rest of an object without its centre may well be background; the rest of a crowd region is one.
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
    """Half of the images become a part of a mean-coloured one up to 4 times as high and wide, of the same size."""
    height, width = parts[0].shape[1:]
    return _resized(v2.RandomZoomOut(fill=FILL)(*parts), (height, width))


def _pad(parts: Parts, size: tuple[int, int]) -> Parts:
    """At a random place in a mean-coloured image of `size`."""
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

"""Resizes, flips and pads uint8 images, together with their boxes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.detector.boxes import per_coordinate
from retinanet.detector.structures import MEAN

MULTIPLE = 32  # the stride of C5: C3 and C4 then have exactly twice as many rows and columns as the next level


def resized_sizes(sizes: np.ndarray, min_side: int, max_side: int) -> np.ndarray:
    """Returns `sizes` [N, 2], scaled so that the shorter side is `min_side`: int32 [N, 2].

    The scale is smaller if the longer side would otherwise exceed `max_side`.
    """
    scales = np.minimum(min_side / sizes.min(axis=1), max_side / sizes.max(axis=1))
    return np.rint(sizes * scales[:, None]).clip(1).astype(np.int32)


def longest_at(side: int, min_side: int, max_side: int) -> int:
    """Returns the longer side's limit when the shorter side is `side`: `max_side`, scaled by `side` / `min_side`."""
    return round(max_side * side / min_side)


def padded_sizes(sizes: np.ndarray) -> np.ndarray:
    """Returns `sizes` [..., 2], rounded up to multiples of 32."""
    return -(-sizes // MULTIPLE) * MULTIPLE


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Returns `pixels`, uint8 [height, width, 3], as an image, uint8 [3, height, width], that shares their memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Returns `image`, uint8 [3, h, w], resized to `size` with antialiasing, in the same memory format."""
    if image.shape[1:] == torch.Size(size):
        return image
    # The batch of one is made in the order height, width, channels, or PyTorch would reorder the result.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, list(size), mode="bilinear", antialias=True)[0]


def scale_boxes(boxes: Tensor, old_size: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Returns `boxes` [N, 4], scaled from an image of `old_size` to `size`, and the scale, float32 [2].

    The scale is (vertical, horizontal). The two may differ, because each side is rounded separately.
    """
    scale = torch.tensor([size[0] / old_size[0], size[1] / old_size[1]])
    return boxes * per_coordinate(scale), scale


def mirrored_boxes(boxes: Tensor, widths: Tensor | int) -> Tensor:
    """Returns `boxes` [..., 4], mirrored left to right within their images of `widths` [...]."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([widths - x2, y1, widths - x1, y2], dim=-1)


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `image` [3, h, w] and `boxes` [N, 4], mirrored left to right."""
    return image.flip(2), mirrored_boxes(boxes, image.shape[2])


def padded_shape(needed: Sequence[int], sides: Sequence[int] | None = None) -> tuple[int, int]:
    """Returns the smallest padded (H, W) that `needed` fits in: multiples of 32, or values from `sides`."""
    if sides is None:
        height, width = padded_sizes(np.array(needed)).tolist()
    else:
        height, width = (min(side for side in sides if side >= least) for least in needed)
    return height, width


def pad_and_stack(images: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """Stacks uint8 images [3, h, w] as [B, 3, H, W], channels last, padded at the right and bottom.

    The padding has the mean colour, which normalises to about zero, the value with which convolutions pad. `shape` is
    (H, W).
    """
    height, width = shape
    colour = torch.tensor(MEAN).round().to(torch.uint8)
    stacked = torch.empty(len(images), height, width, 3, dtype=torch.uint8)
    for row, image in zip(stacked, images, strict=True):
        image_height, image_width = image.shape[1:]
        row[:image_height, :image_width] = image.permute(1, 2, 0)
        row[image_height:] = colour
        row[:image_height, image_width:] = colour
    return stacked.permute(0, 3, 1, 2)

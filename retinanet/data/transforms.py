"""Resizing, flipping and padding images with their boxes, all in uint8."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize as resize_image

from retinanet.detector.boxes import per_coordinate
from retinanet.detector.structures import MEAN

MULTIPLE = 32  # the stride of C5: every level then has twice the cells of the next


def resized_sizes(sizes: np.ndarray, min_side: int, max_side: int) -> np.ndarray:
    """For each of `sizes` [N, 2] that with the shorter side at `min_side`, or less where the longer would exceed
    `max_side`: int32 [N, 2]."""
    scales = np.minimum(min_side / sizes.min(axis=1), max_side / sizes.max(axis=1))
    return np.rint(sizes * scales[:, None]).clip(1).astype(np.int32)


def longest_at(side: int, min_side: int, max_side: int) -> int:
    """What the longer side is limited to where the shorter is `side`, if it is `max_side` at `min_side`."""
    return round(max_side * side / min_side)


def padded_sizes(sizes: np.ndarray) -> np.ndarray:
    """For each of `sizes` [..., 2] the next multiples of 32."""
    return -(-sizes // MULTIPLE) * MULTIPLE


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """`image` uint8 [3, h, w] brought to `size`."""
    return resize_image(image, list(size), antialias=True)


def scale_boxes(boxes: Tensor, old_size: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`boxes` [N, 4] of an image of `old_size` brought to `size`, and the scale (vertical, horizontal) float32 [2].

    Each axis has its own scale, since both sides are rounded.
    """
    scale = torch.tensor([size[0] / old_size[0], size[1] / old_size[1]])
    return boxes * per_coordinate(scale), scale


def mirrored_boxes(boxes: Tensor, widths: Tensor | int) -> Tensor:
    """`boxes` [..., 4] after their images of `widths` [...] are mirrored left to right."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([widths - x2, y1, widths - x1, y2], dim=-1)


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """`image` [3, h, w] and `boxes` [N, 4] mirrored left to right."""
    return image.flip(2), mirrored_boxes(boxes, image.shape[2])


def padded_shape(needed: Sequence[int], sides: Sequence[int] | None = None) -> tuple[int, int]:
    """(H, W) of a batch whose images need this (height, width): the next multiples of 32, or the next of `sides`."""
    if sides is None:
        height, width = padded_sizes(np.array(needed)).tolist()
    else:
        height, width = (min(side for side in sides if side >= least) for least in needed)
    return height, width


def pad_and_stack(images: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """uint8 images [3, h, w] in one tensor [B, 3, H, W], channels last, padded right and below with the mean colour.

    The mean colour is what normalises to about zero, which is also what a convolution pads with. `shape` is (H, W).
    """
    height, width = shape
    colour = torch.tensor(MEAN).round().to(torch.uint8)
    stacked = torch.empty(len(images), height, width, 3, dtype=torch.uint8)
    for row, image in zip(stacked, images, strict=True):
        own_height, own_width = image.shape[1:]
        row[:own_height, :own_width] = image.permute(1, 2, 0)
        row[own_height:] = colour
        row[:own_height, own_width:] = colour
    return stacked.permute(0, 3, 1, 2)

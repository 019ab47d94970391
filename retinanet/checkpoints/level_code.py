"""RetinaNet with a fixed linear map of the deltas per pyramid level, which torchvision's detector needs."""

from typing import Any

import torch
from torch import Tensor

from retinanet.detector.anchors import STRIDES
from retinanet.detector.model import RetinaNet


class LevelCodedRetinaNet(RetinaNet):
    """A RetinaNet whose regression head was trained with other anchors than its own.

    The deltas of each level and anchor of a cell are multiplied by `level_scale` and shifted by `level_shift`, which
    are not learned. They start as 1 and 0; see pretrained_detector.
    """

    level_scale: Tensor  # [levels, anchors of a cell, 4], as level_shift
    level_shift: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape = len(STRIDES), self.anchor_shapes.per_cell, 4
        self.register_buffer("level_scale", torch.ones(shape))
        self.register_buffer("level_shift", torch.zeros(shape))

    def deltas_of(self, levels: list[Tensor]) -> list[Tensor]:
        codes = zip(super().deltas_of(levels), self.level_scale, self.level_shift, strict=True)
        num_anchors = self.anchor_shapes.per_cell
        return [(part.unflatten(1, (-1, num_anchors)) * scale + shift).flatten(1, 2) for part, scale, shift in codes]

"""Defines RetinaNet: a ResNet, a feature pyramid and two heads (https://arxiv.org/abs/1708.02002)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.detector.anchors import ANCHORS_PER_CELL, STRIDES
from retinanet.detector.backbone import Backbone, conv2d, start_convolutions
from retinanet.detector.settings import NORM_GROUPS, PRIOR, Architecture
from retinanet.detector.structures import DEVIATION, MEAN, Predictions

TOWER_CONVOLUTIONS = 4


class RetinaNet(nn.Module):
    """Turns uint8 images into the logits and deltas of every anchor.

    `prior` is the initial score of every anchor and class. For `learn_statistics`, see Backbone.
    """

    mean: Tensor
    deviation: Tensor
    level_scale: Tensor  # [levels, anchors per cell, 4], like level_shift; only with a level code
    level_shift: Tensor

    def __init__(
        self, architecture: Architecture, num_classes: int, *, prior: float = PRIOR, learn_statistics: bool = False
    ) -> None:
        super().__init__()
        self.architecture = architecture
        channels, num_anchors = architecture.channels, architecture.anchors.per_cell
        self.backbone = Backbone(architecture.depth, learn_statistics)
        self.pyramid = Pyramid(self.backbone.out_channels, channels, architecture.p6_from_p5)
        norm, logit = architecture.head_norm, -math.log((1 - prior) / prior)
        self.classification_head = Head(channels, num_classes, logit, norm, num_anchors)
        self.regression_head = Head(channels, 5 if architecture.iou_branch else 4, 0.0, norm, num_anchors)
        if architecture.level_code:
            shape = len(STRIDES), num_anchors, 4
            self.register_buffer("level_scale", torch.ones(shape))
            self.register_buffer("level_shift", torch.zeros(shape))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        # Convolutions run fastest with channels last, on CPUs and GPUs, and the heads' reshape becomes free.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Predictions:
        """Returns the predictions for uint8 `images` [B, 3, H, W], with anchors in the order of `anchors_for`."""
        levels = self.levels(images)
        return Predictions(
            logits=torch.cat([self.classification_head(level) for level in levels], dim=1),
            deltas=torch.cat(self.deltas_of(levels), dim=1),
        )

    def deltas_of(self, levels: list[Tensor]) -> list[Tensor]:
        """Returns the deltas for each of the pyramid's `levels`: [B, anchors of the level, 4 or 5]; see Predictions."""
        deltas = [self.regression_head(level) for level in levels]
        if not self.architecture.level_code:
            return deltas
        codes = zip(deltas, self.level_scale, self.level_shift, strict=True)
        num_anchors = self.architecture.anchors.per_cell
        return [(part.unflatten(1, (-1, num_anchors)) * scale + shift).flatten(1, 2) for part, scale, shift in codes]

    def levels(self, images: Tensor) -> list[Tensor]:
        """Returns the pyramid levels P3..P7 of uint8 `images`, each [B, channels, h, w]."""
        normalised = (images.contiguous(memory_format=torch.channels_last) - self.mean) / self.deviation
        return self.pyramid(*self.backbone(normalised))


class Pyramid(nn.Module):
    """The feature pyramid, P3..P7 (https://arxiv.org/abs/1612.03144)."""

    def __init__(self, in_channels: tuple[int, int, int], channels: int, p6_from_p5: bool = False) -> None:
        super().__init__()
        self.p6_from_p5 = p6_from_p5
        self.lateral3, self.lateral4, self.lateral5 = (nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output3, self.output4, self.output5 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.output6 = Downsampling(channels if p6_from_p5 else in_channels[2], channels)
        self.output7 = Downsampling(channels, channels)
        start_convolutions(self)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        merged5 = self.lateral5(c5)
        merged4 = self.lateral4(c4) + F.interpolate(merged5, size=c4.shape[2:])
        merged3 = self.lateral3(c3) + F.interpolate(merged4, size=c3.shape[2:])
        p5 = self.output5(merged5)
        p6 = self.output6(p5 if self.p6_from_p5 else c5)
        p7 = self.output7(F.relu(p6))
        return [self.output3(merged3), self.output4(merged4), p5, p6, p7]


class Downsampling(nn.Conv2d):
    """A 3x3 convolution that halves the height and width."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 3, stride=2, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return conv2d(features, self.weight, self.bias, self.stride, self.padding)


class Head(nn.Module):
    """A head that all levels share: a tower of convolutions, then one that outputs `bias` everywhere before training.

    With `norm` "group", group normalisation (https://arxiv.org/abs/1803.08494) follows each convolution of the tower.
    These convolutions then have no bias.
    """

    def __init__(
        self, channels: int, num_outputs: int, bias: float, norm: str = "none", num_anchors: int = ANCHORS_PER_CELL
    ) -> None:
        super().__init__()
        self.num_outputs, self.num_anchors = num_outputs, num_anchors  # per anchor, and per cell
        self.tower = nn.Sequential()
        for _ in range(TOWER_CONVOLUTIONS):
            self.tower.append(nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none"))
            if norm == "group":
                self.tower.append(GroupNorm(NORM_GROUPS, channels))
            self.tower.append(nn.ReLU(inplace=True))
        self.output = nn.Conv2d(channels, num_anchors * num_outputs, 3, padding=1)
        start_convolutions(self.tower)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, bias)

    def forward(self, level: Tensor) -> Tensor:
        """Maps [B, channels, h, w] to [B, h * w * anchors per cell, outputs], ordered by row, column and anchor."""
        outputs = self.output(self.tower(level))
        return outputs.permute(0, 2, 3, 1).reshape(level.shape[0], -1, self.num_outputs)


class GroupNorm(nn.GroupNorm):
    """A GroupNorm that, unlike PyTorch's, accepts groups of one value, such as in a P7 of one cell and 32 channels."""

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cuda":
            return torch.group_norm(features, self.num_groups, self.weight, self.bias, self.eps)
        # On CUDA, autocast would cast to float32 here and back in the next convolution; on a CPU, it keeps bfloat16.
        # The statistics are float32 in any case. The CUDA kernel needs weights of the features' dtype.
        with torch.autocast("cuda", enabled=False):
            weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
            return torch.group_norm(features, self.num_groups, weight, bias, self.eps)

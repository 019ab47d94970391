"""Convolution, bias, shortcut and ReLU as one operation of cuDNN, which saves passes over the features.

Off until a GPU has shown it to be faster and equal: set RETINANET_EPILOGUES=1 to try it.
"""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SWITCH = "RETINANET_EPILOGUES"
Given = tuple[Tensor, Tensor | None]  # weight and bias


def are_on() -> bool:
    return os.environ.get(SWITCH) == "1"


class GivenConvolution(nn.Module):
    """A convolution that takes its next weight and bias from `weights` at each call."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.padding = like.stride, like.padding
        self.weights: Iterator[Given] = iter(())
        self.has_relu = False  # which then is no layer of its own

    def forward(self, features: Tensor) -> Tensor:
        if self.has_relu:
            return self.with_relu(features)
        return F.conv2d(features, *next(self.weights), self.stride, self.padding)

    def with_relu(self, features: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """The ReLU of the convolution and, if there is one, the `shortcut`."""
        weight, bias = next(self.weights)
        return _ConvolutionRelu.apply(features.to(weight.dtype), weight, bias, shortcut, self.stride, self.padding)


class _ConvolutionRelu(torch.autograd.Function):
    """relu(convolution + bias + shortcut)."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        shortcut: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        where = (stride, padding, (1, 1), 1)
        if features.device.type != "cuda":
            out = torch.convolution(features, weight, bias, stride, padding, (1, 1), False, (0, 0), 1)
            out = (out if shortcut is None else out + shortcut).relu()
        elif shortcut is None:
            out = torch.cudnn_convolution_relu(features, weight, bias, *where)
        else:
            out = torch.cudnn_convolution_add_relu(features, weight, shortcut, 1.0, bias, *where)
        ctx.save_for_backward(features, weight, out)
        ctx.where, ctx.has_shortcut = where, shortcut is not None
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, out = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.where
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        of_inputs = torch.ops.aten.convolution_backward(
            *(gradient, features, weight, [len(weight)], stride, padding, dilation, False, (0, 0), groups),
            list(ctx.needs_input_grad[:3]),
        )
        return (*of_inputs, gradient if ctx.has_shortcut else None, None, None)


class EpilogueBackbone(nn.Module):
    """The forward pass of a Backbone whose convolutions are GivenConvolutions with their norms folded in."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As Backbone's."""
        body: Any = self.backbone
        features = F.relu(body.maxpool(body.conv1(images)), inplace=True)
        levels = []
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            for block in layer:
                features = _block(features, block)
            levels.append(features)
        return tuple(levels[1:])


def _block(features: Tensor, block: Any) -> Tensor:
    shortcut = features if block.downsample is None else block.downsample(features)
    convolutions = [block.conv1, block.conv2, *([block.conv3] if hasattr(block, "conv3") else [])]
    for convolution in convolutions[:-1]:
        features = convolution.with_relu(features)
    return convolutions[-1].with_relu(features, shortcut)


def use_epilogues(network: Any) -> None:
    """Change a network of GivenConvolutions, so that each ReLU after one of them is a part of it."""
    network.backbone = EpilogueBackbone(network.backbone)
    for head in (network.classification_head, network.regression_head):
        layers = list(head.tower)
        for index in range(len(layers) - 1):
            if isinstance(layers[index], GivenConvolution) and isinstance(layers[index + 1], nn.ReLU):
                layers[index].has_relu, head.tower[index + 1] = True, nn.Identity()

"""Convolution, bias, shortcut and ReLU as one operation of cuDNN, which saves passes over the features.

Off until a GPU has shown it to be faster and equal: set RETINANET_EPILOGUES=1 to try it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, library, nn
from torch.nn import functional as F

from retinanet.detector.backbone import folded
from retinanet.fast.folded_layers import with_norms

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

    def given(self) -> Given:
        return next(self.weights)

    def forward(self, features: Tensor) -> Tensor:
        if self.has_relu:
            return self.with_relu(features)
        return F.conv2d(features, *self.given(), self.stride, self.padding)

    def without_bias(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution, and the bias that is yet to be added."""
        weight, bias = self.given()
        assert bias is not None
        return F.conv2d(features, weight, None, self.stride, self.padding), bias

    def with_relu(
        self, features: Tensor, shortcut: Tensor | None = None, bias_of_shortcut: Tensor | None = None
    ) -> Tensor:
        """The ReLU of the convolution and, if there is one, the `shortcut`."""
        weight, bias = self.given()
        if bias is not None and bias_of_shortcut is not None:
            bias = bias + bias_of_shortcut
        return _ConvolutionRelu.apply(features.to(weight.dtype), weight, bias, shortcut, self.stride, self.padding)


class FoldingConvolution(GivenConvolution):
    """One that gives itself the weight and bias of a layer and of the norm after it, in format `dtype`.

    For the compiler, which makes one kernel of that, and could not follow weights given from outside.
    """

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, dtype: torch.dtype) -> None:
        super().__init__(layer)
        self.layer, self.norm, self.dtype = layer, norm, dtype

    def given(self) -> Given:
        if self.norm is None:
            weight, bias = self.layer.weight, self.layer.bias
        else:
            weight, bias = folded(self.layer, self.norm)
        return weight.to(self.dtype), None if bias is None else bias.to(self.dtype)


def convolution_relu(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """relu(convolution + bias + shortcut)."""
    where = (stride, padding, (1, 1), 1)
    if features.device.type != "cuda":
        out = torch.convolution(features, weight, bias, stride, padding, (1, 1), False, (0, 0), 1)
        return (out if shortcut is None else out + shortcut).relu()
    if shortcut is None:
        return torch.cudnn_convolution_relu(features, weight, bias, *where)
    return torch.cudnn_convolution_add_relu(features, weight, shortcut, 1.0, bias, *where)


# For the compiler, which knows no shapes of cuDNN's operations.
_operation = library.custom_op("retinanet::convolution_relu", convolution_relu, mutates_args=())


@_operation.register_fake
def _shape(features: Tensor, weight: Tensor, bias: Tensor, shortcut: Any, stride: Any, padding: Any) -> Tensor:
    return torch.convolution(features, weight, bias, stride, padding, (1, 1), False, (0, 0), 1)


class _ConvolutionRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        features, weight, _, shortcut, stride, padding = inputs
        out: Tensor = (_operation if torch.compiler.is_compiling() else convolution_relu)(*inputs)
        ctx.save_for_backward(features, weight, out)
        ctx.where, ctx.has_shortcut = (stride, padding, (1, 1), 1), shortcut is not None
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
        features, bias = body.conv1.without_bias(images)
        # Added to the largest values alone it gives the same for a quarter of the work.
        features = F.relu(body.maxpool(features) + bias[:, None, None], inplace=True)
        levels = []
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            for block in layer:
                features = _block(features, block)
            levels.append(features)
        return tuple(levels[1:])


def _block(features: Tensor, block: Any) -> Tensor:
    shortcut, bias = (features, None) if block.downsample is None else block.downsample[0].without_bias(features)
    convolutions = [block.conv1, block.conv2, *([block.conv3] if hasattr(block, "conv3") else [])]
    for convolution in convolutions[:-1]:
        features = convolution.with_relu(features)
    return convolutions[-1].with_relu(features, shortcut, bias)


def use_epilogues(network: Any) -> None:
    """Change a network of GivenConvolutions, so that each ReLU after one of them is a part of it."""
    network.backbone = EpilogueBackbone(network.backbone)
    for head in (network.classification_head, network.regression_head):
        layers = list(head.tower)
        for index in range(len(layers) - 1):
            if isinstance(layers[index], GivenConvolution) and isinstance(layers[index + 1], nn.ReLU):
                layers[index].has_relu, head.tower[index + 1] = True, nn.Identity()


def with_epilogues(model: Any, dtype: torch.dtype) -> Any:
    """A network of `model`'s layers and parameters that has epilogues and can be compiled."""
    norms = {convolution: norm for _, convolution, norm in with_norms(model)}
    network = rebuilt(model, lambda layer: FoldingConvolution(layer, norms.get(layer), dtype))
    use_epilogues(network)
    return network


def rebuilt(model: Any, convolution_for: Callable[[nn.Conv2d], GivenConvolution]) -> Any:
    """`model`'s layers and parameters in another network, with other convolutions and without batch norms."""
    network = deepcopy(model, {id(value): value for value in (*model.parameters(), *model.buffers())})
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            network.set_submodule(name, convolution_for(layer))
        elif isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    return network

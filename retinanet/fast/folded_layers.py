"""The weights that convolutions run with, made for many layers at once, as are the gradients of what they come from.

Layer by layer that is some 16 small kernels each, which a GPU is through with faster than its host can launch them.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def with_norms(model: Any) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """The backbone's convolutions by name, and the batch norm after each."""
    ahead: tuple[str, nn.Conv2d] | None = None
    for name, layer in model.backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            ahead = name, layer
        elif isinstance(layer, nn.BatchNorm2d):
            assert ahead is not None
            yield *ahead, layer
            ahead = None


class NormedLayers:
    """Convolutions and the batch norms after them, whose statistics are fixed. Layers of one shape share kernels."""

    def __init__(self, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
        self.pairs = sorted(pairs, key=lambda pair: tuple(pair[0].weight.shape))
        self.parameters = [
            *(convolution.weight for convolution, _ in self.pairs),
            *(norm.weight for _, norm in self.pairs),
            *(norm.bias for _, norm in self.pairs),
        ]
        self.versions: list[int] = []

    def constants(self) -> tuple[Tensor, Tensor]:
        """1 / deviation and mean / deviation, [channels of all layers]. Made again where they changed."""
        statistics = [value for _, norm in self.pairs for value in (norm.running_mean, norm.running_var)]
        versions = [value._version for value in statistics if value is not None]
        if versions != self.versions:
            means, variances = torch.cat(statistics[::2]), torch.cat(statistics[1::2])  # type: ignore[arg-type]
            epsilons = {norm.eps for _, norm in self.pairs}
            assert len(epsilons) == 1
            self.inverses = torch.rsqrt(variances + epsilons.pop())
            self.offsets = means * self.inverses
            self.versions = versions
        return self.inverses, self.offsets

    def folded(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each layer's convolution, in the order of `pairs`."""
        num = len(self.pairs)
        tensors = _Fold.apply(*self.constants(), dtype, *self.parameters)
        return list(zip(tensors[:num], tensors[num:], strict=True))


class _Same(NamedTuple):
    """Layers of one shape: where they are among all layers, and their channels among all channels."""

    layers: slice
    channels: slice


class _Fold(torch.autograd.Function):
    """weight * s and shift - mean / deviation * scale, where s is scale / deviation."""

    @staticmethod
    def forward(ctx: Any, inverses: Tensor, offsets: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Any:
        num = len(parameters) // 3
        weights, norm_scales = parameters[:num], torch.cat(parameters[num : 2 * num])
        scales = norm_scales * inverses
        shifts = torch.addcmul(torch.cat(parameters[2 * num :]), norm_scales, offsets, value=-1).to(dtype)
        folded: list[Tensor] = []
        for layers, channels in _by_shape(weights):
            rows = _rows(weights[layers])
            out = torch.empty_like(rows, dtype=dtype)  # float32's products are rounded once, in the same kernel
            folded += _unrowed(torch.mul(rows, scales[channels, None], out=out), weights[layers])
        ctx.save_for_backward(inverses, offsets, scales, *weights)
        return (*folded, *shifts.split([len(weight) for weight in weights]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inverses, offsets, scales, *weights = ctx.saved_tensors
        num = len(weights)
        of_scales = torch.empty_like(scales)
        of_weights: list[Tensor] = []
        for layers, channels in _by_shape(weights):
            rows = _rows(gradients[layers])
            of_weights += _unrowed(rows * scales[channels, None], weights[layers])
            torch.sum(_rows(weights[layers]) * rows, dim=1, out=of_scales[channels])
        of_shifts = torch.cat(gradients[num:]).to(scales.dtype)
        of_norm_scales = torch.addcmul(of_scales * inverses, of_shifts, offsets, value=-1)
        lengths = [len(weight) for weight in weights]
        return (None, None, None, *of_weights, *of_norm_scales.split(lengths), *of_shifts.split(lengths))


def _by_shape(weights: Sequence[Tensor]) -> list[_Same]:
    """The runs of `weights` of one shape."""
    found, first, channel = [], 0, 0
    for shape, run in groupby(weights, key=lambda weight: weight.shape):
        num = len(list(run))
        found.append(_Same(slice(first, first + num), slice(channel, channel + num * shape[0])))
        first, channel = found[-1].layers.stop, found[-1].channels.stop
    return found


def _rows(weights: Sequence[Tensor]) -> Tensor:
    """[output channels of all, values of each]. Channels come last, as in memory."""
    rows = [weight.permute(0, 2, 3, 1).flatten(1) for weight in weights]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _unrowed(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    num_outputs, num_inputs, height, width = like[0].shape
    parts = rows.view(len(like), num_outputs, height, width, num_inputs).permute(0, 1, 4, 2, 3)
    return list(parts.unbind())


class Cast(torch.autograd.Function):
    """Parameters in another format, each as often as it is used: its gradients are added up here.

    `num_uses` copies of the first of the parameters, then of the second ... They share memory.
    """

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, num_uses: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.num_uses, ctx.dtype = num_uses, parameters[0].dtype
        cast = [torch.empty_like(parameter, dtype=dtype) for parameter in parameters]
        torch._foreach_copy_(cast, list(parameters))
        return tuple(tensor.detach() for tensor in cast for _ in range(num_uses))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, *others = (list(gradients[use :: ctx.num_uses]) for use in range(ctx.num_uses))
        if others:
            first = list(torch._foreach_add(first, others[0]))
        for more in others[1:]:
            torch._foreach_add_(first, more)
        of_parameters = [torch.empty_like(gradient, dtype=ctx.dtype) for gradient in first]
        torch._foreach_copy_(of_parameters, first)
        return (None, None, *of_parameters)

"""A convolution whose gradient is worked out only where there is one.

The regression loss speaks of the foreground anchors alone, so the gradient that comes back to the regression head is
zero but for the cells around the objects: a tenth of all, or a hundredth. On a CPU the rest is time for nothing.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight


class SparseGradientConv2d(nn.Conv2d):
    """nn.Conv2d for 3x3 weights and padding 1; its gradients are the same but for the order of their sums."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Where the gradient isn't zero is data, which a GPU would have to be waited for and no compiler knows.
        if input.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super()._conv_forward(input, weight, bias)
        return _Convolution.apply(input, weight, bias)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return F.conv2d(features, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three gradients, image by image from the rectangle that holds all of `gradient` that isn't zero."""
        features, weight = ctx.saved_tensors
        features_gradient, weight_gradient = torch.zeros_like(features), torch.zeros_like(weight)
        touched = gradient.ne(0).any(dim=1)  # [B, h, w]
        for image in range(len(features)):
            cells = touched[image].nonzero()
            if not len(cells):
                continue
            (top, left), (bottom, right) = cells.amin(0).tolist(), (cells.amax(0) + 1).tolist()
            patch = gradient[image : image + 1, :, top:bottom, left:right]
            # The convolution's window reaches one cell further, and at a border into the padding.
            rows = slice(max(top - 1, 0), bottom + 1)
            columns = slice(max(left - 1, 0), right + 1)
            seen = features[image : image + 1, :, rows, columns]
            outside = (
                int(left == 0),
                int(right == features.shape[3]),
                int(top == 0),
                int(bottom == features.shape[2]),
            )
            padded = F.pad(seen, outside)
            weight_gradient += conv2d_weight(padded, weight.shape, patch)
            padded_gradient = conv2d_input(padded.shape, weight, patch)
            features_gradient[image : image + 1, :, rows, columns] = F.pad(padded_gradient, [-n for n in outside])
        return features_gradient, weight_gradient, gradient.sum(dim=(0, 2, 3))

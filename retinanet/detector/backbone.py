"""Defines the backbone: a ResNet that returns feature maps of strides 8, 16 and 32 instead of class scores."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.detector.settings import BLOCKS, BOTTLENECKS, STAGES

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions or, with `growth` 4, a 1x1, a 3x3 and a 1x1 that is 4 times as wide."""

    def __init__(self, channels: int, width: int, growth: int, stride: int) -> None:
        super().__init__()
        # Created first and registered last, as in torchvision, so that each seed still gives the same weights.
        is_same = stride == 1 and channels == width * growth
        downsample = None if is_same else nn.Sequential(*_convolution(channels, width * growth, 1, stride))
        if growth == 1:
            self.conv1, self.bn1 = _convolution(channels, width, 3, stride)
            self.conv2, self.bn2 = _convolution(width, width, 3)
        else:
            self.conv1, self.bn1 = _convolution(channels, width, 1)
            self.conv2, self.bn2 = _convolution(width, width, 3, stride)
            self.conv3, self.bn3 = _convolution(width, width * growth, 1)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Returns the block's output. Batch norms are folded into the convolutions if possible."""
        shortcut = features if self.downsample is None else _convolve(features, *self.downsample)
        features = F.relu(_convolve(features, self.conv1, self.bn1), inplace=True)
        last = self.conv2, self.bn2
        if hasattr(self, "conv3"):
            features = F.relu(_convolve(features, *last), inplace=True)
            last = self.conv3, self.bn3
        return F.relu(_convolve(features, *last).add_(shortcut), inplace=True)


def _convolution(channels: int, out_channels: int, side: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Returns a convolution with a kernel of `side` x `side`, and its batch norm."""
    convolution = nn.Conv2d(channels, out_channels, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(out_channels)


def growth_of(depth: int) -> int:
    """Returns the ratio of a block's output channels to the channels of its 3x3 convolutions."""
    return 1 if depth < BOTTLENECKS else 4


def _layers(depth: int) -> Iterator[nn.Sequential]:
    """Yields layer1 to layer4. Each except the first halves the height and width."""
    channels, growth = WIDTHS[0], growth_of(depth)
    for width, num_blocks in zip(WIDTHS, BLOCKS[depth], strict=True):
        first = Block(channels, width, growth, stride=1 if width == WIDTHS[0] else 2)
        channels = width * growth
        yield nn.Sequential(first, *(Block(channels, width, growth, stride=1) for _ in range(num_blocks - 1)))


class Backbone(nn.Module):
    """A ResNet without its classifier, with weights initialised and named as in torchvision (`layer1.0.conv1.weight`).

    Batch norm's scale and shift are trained; its statistics are updated only with `learn_statistics`. Otherwise, the
    loaded statistics stay fixed, because the default batch of two images is too small to estimate them.
    """

    def __init__(self, depth: int, learn_statistics: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, WIDTHS[0], 7, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = _layers(depth)
        last = WIDTHS[-1] * growth_of(depth)
        nn.Linear(last, 1000)  # drawn and dropped, like torchvision's classifier, so that a seed gives the same weights
        start_convolutions(self)
        self.depth = depth
        self.out_channels = (last // 4, last // 2, last)
        self.learn_statistics = learn_statistics
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not (self.learn_statistics and module.weight.requires_grad):
                module.eval()
        return self

    def freeze(self, num_stages: int) -> None:
        """Freezes the weights and statistics of the first `num_stages` of STAGES, which then skip the backward pass."""
        for name in modules_of(num_stages):
            getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns C3, C4 and C5 of normalised `images` [B, 3, H, W], with strides 8, 16 and 32."""
        # Pooling before the ReLU gives the same result for a quarter of the work.
        features = F.relu(self.maxpool(_convolve(images, self.conv1, self.bn1)), inplace=True)
        levels = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
            levels.append(features)
        return levels[1], levels[2], levels[3]


def _convolve(features: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d | nn.Identity) -> Tensor:
    """Applies the convolution and the batch norm that follows it.

    With fixed statistics, the two become one convolution with scaled weights. This saves a pass over the features, both
    forward and backward, and the memory for the convolution's output.
    """
    geometry = convolution.stride, convolution.padding
    if isinstance(norm, nn.Identity) or norm.training:  # Identity: the norm is already folded
        return norm(conv2d(features, convolution.weight, convolution.bias, *geometry))
    return conv2d(features, *folded(convolution, norm), *geometry)


def start_convolutions(module: nn.Module) -> None:
    """Draws He-normal weights (by fan-out) and zeroes biases, because training from PyTorch's defaults is slow."""
    for convolution in module.modules():
        # Drawing on the meta device would import PyTorch's compiler, which takes 1.5 s.
        if isinstance(convolution, nn.Conv2d) and not convolution.weight.is_meta:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)


def conv2d(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
) -> Tensor:
    """Convolves like F.conv2d, but in float32 where bfloat16 on a CPU gives wrong values.

    If the output is one column wide, oneDNN's 3x3 convolution with stride 2 reads past the end of the input, both
    forward and backward, and its results are wrong, infinite or NaN. The output and the gradients keep their dtypes.
    """
    if (
        stride[1] == 2
        and weight.shape[3] == 3
        and features.dtype == torch.bfloat16
        and features.device.type == "cpu"
        and features.shape[3] <= 2
    ):
        with torch.autocast("cpu", enabled=False):
            exact = F.conv2d(features.float(), weight.float(), None if bias is None else bias.float(), stride, padding)
        return exact.to(features.dtype)
    return F.conv2d(features, weight, bias, stride, padding)


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns the weight and bias of one convolution that equals `convolution` followed by `norm`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def modules_of(num_stages: int) -> set[str]:
    """Returns the names of the modules in the first `num_stages` of STAGES."""
    return set(chain(*list(STAGES.values())[:num_stages]))

"""The backbone: torchvision's ResNet, cut to the feature maps of stride 8, 16 and 32."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from retinanet.detector.settings import STAGES

# The number of blocks in layer1 to layer4. A block has three convolutions at depth 50 and above, otherwise two.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Backbone(nn.Module):
    """A ResNet without its classifier, with torchvision's initial weights and names (`layer1.0.conv1.weight`).

    Batch norm's scale and shift are trained; its statistics are updated only with `learn_statistics`. By default, the
    loaded statistics stay fixed, because a batch of two images is too small to estimate them.
    """

    def __init__(self, depth: int, learn_statistics: bool = False) -> None:
        super().__init__()
        resnet = get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1, self.maxpool = resnet.conv1, resnet.bn1, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        last = 512 if depth < 50 else 2048
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
            for block in layer:
                features = _block(features, block)
            levels.append(features)
        return levels[1], levels[2], levels[3]


def _block(features: Tensor, block: Any) -> Tensor:
    """Runs torchvision's BasicBlock (two convolutions) or Bottleneck (three), with batch norm folded where possible."""
    shortcut = features if block.downsample is None else _convolve(features, block.downsample[0], block.downsample[1])
    numbers = "123" if hasattr(block, "conv3") else "12"
    convolutions = [(getattr(block, f"conv{number}"), getattr(block, f"bn{number}")) for number in numbers]
    for convolution, norm in convolutions[:-1]:
        features = F.relu(_convolve(features, convolution, norm), inplace=True)
    return F.relu(_convolve(features, *convolutions[-1]).add_(shortcut), inplace=True)


def _convolve(features: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d | nn.Identity) -> Tensor:
    """Applies the convolution and the batch norm that follows it.

    With fixed statistics, both are one convolution with scaled weights. This saves a pass over the features, forward
    and backward, and the memory for the convolution's output.
    """
    geometry = convolution.stride, convolution.padding
    if isinstance(norm, nn.Identity) or norm.training:  # Identity: the norm is already folded
        return norm(conv2d(features, convolution.weight, convolution.bias, *geometry))
    return conv2d(features, *folded(convolution, norm), *geometry)


def conv2d(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
) -> Tensor:
    """Convolves like F.conv2d, but in float32 where bfloat16 on a CPU gives wrong values.

    oneDNN's 3x3 convolution with stride 2 and its gradients read past the end of the input if the output is one column
    wide, which gives wrong, infinite or NaN values. Output and gradients keep their dtypes.
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

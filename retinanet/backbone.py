"""torchvision's ResNet and its weights, cut to the feature maps of stride 8, 16 and 32."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import WeightsEnum, get_model, get_model_weights

from retinanet.errors import UserError
from retinanet.torchfiles import load_file

# The blocks of layer1 to layer4. From depth 50 on a block has three convolutions, below two.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTHS = tuple(BLOCKS)
DEPTHS_OF_V2 = (50, 101, 152)  # that torchvision has its newer ImageNet weights for
BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.(\w+)\.")
STAGES = {"stem": ("conv1", "bn1"), **{name: (name,) for name in ("layer1", "layer2", "layer3", "layer4")}}


class Backbone(nn.Module):
    """A ResNet without its classifier, with torchvision's start and names (`conv1.weight`, `layer1.0.conv1.weight`).

    The batch-norm layers' scale and shift are learned. Their statistics are only with `learn_statistics`: batches of
    two images are too few to measure them, so those of the loaded weights stay.
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
        """Fix the weights and statistics of the first stages (of STAGES); they cost no backward pass then."""
        for name in modules_of(num_stages):
            getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised `images` [B, 3, H, W]: strides 8, 16 and 32."""
        # The maximum of ReLUs is the ReLU of the maximum, which is a quarter of the work.
        features = F.relu(self.maxpool(_convolve(images, self.conv1, self.bn1)), inplace=True)
        levels = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                features = _block(features, block)
            levels.append(features)
        return levels[1], levels[2], levels[3]


def _block(features: Tensor, block: Any) -> Tensor:
    """torchvision's BasicBlock (two convolutions) or Bottleneck (three), with what can be folded folded."""
    shortcut = features if block.downsample is None else _convolve(features, block.downsample[0], block.downsample[1])
    convolutions = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if hasattr(block, "conv3"):
        convolutions.append((block.conv3, block.bn3))
    for convolution, norm in convolutions[:-1]:
        features = F.relu(_convolve(features, convolution, norm), inplace=True)
    return F.relu(_convolve(features, *convolutions[-1]).add_(shortcut), inplace=True)


def _convolve(features: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """The convolution and the batch normalisation behind it.

    With fixed statistics the two are one convolution of scaled weights. That is a pass over the features less each way,
    and the convolution's output need not be kept for the gradient of the scale.
    """
    if norm.training:
        return norm(convolution(features))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    shift = norm.bias - norm.running_mean * scale
    return F.conv2d(features, weight, shift, convolution.stride, convolution.padding)


def modules_of(num_stages: int) -> set[str]:
    """The names of the modules of the first stages."""
    return set(chain(*list(STAGES.values())[:num_stages]))


def depths_of(names: Iterable[str]) -> list[int]:
    """The depths that a ResNet's tensors `names`, which may be part of them, can be of.

    What is there of a ResNet ends anywhere; but where it ends with a stage of some depth, it is of such a depth.
    """
    found = [match for match in map(BLOCK.match, names) if match]
    counts: dict[int, int] = {}  # of blocks, by stage
    for match in found:
        stage, block = int(match[1]), int(match[2])
        counts[stage] = max(counts.get(stage, 0), block + 1)
    if any(match[3] == "conv3" for match in found):
        fitting = [depth for depth in DEPTHS if depth >= 50]
    elif sum(counts.values()) > 1:  # at least one of them is whole, and has no third convolution
        fitting = [depth for depth in DEPTHS if depth < 50]
    else:
        fitting = list(DEPTHS)
    last = max(counts, default=0)
    fitting = [depth for depth in fitting if all(n == BLOCKS[depth][at - 1] for at, n in counts.items() if at < last)]
    whole = [depth for depth in fitting if last and counts[last] == BLOCKS[depth][last - 1]]
    return whole or [depth for depth in fitting if not last or counts[last] < BLOCKS[depth][last - 1]]


class LoadReport(NamedTuple):
    """What a file of weights filled; names are shortened to their module (`layer4`) where all of it is meant."""

    num_loaded: int
    num_tensors: int
    missing: list[str]  # of the backbone, not in the file: they keep their start
    unused: list[str]  # in the file, not of the backbone


def load_backbone(backbone: Backbone, state: Mapping[str, Any], source: str) -> LoadReport:
    """Fill `backbone` from `state`, which may hold only part of it and more than it.

    Raises UserError, and loads nothing, where it is another depth's, a shape differs, a value is not finite, or no
    name fits.
    """
    wanted = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = {name: value for name, value in state.items() if name in wanted and isinstance(value, Tensor)}
    if not found:
        raise UserError(
            f"{source}: none of its {len(state)} names is one of a ResNet's ({', '.join(list(state)[:3])} ...). "
            "The names must be torchvision's: conv1.weight, layer1.0.conv1.weight ..."
        )
    if backbone.depth not in (depths := depths_of(state)):
        fix = f"Give --depth {depths[0]}, or another file" if depths else "Give another file"
        raise UserError(
            f"{source}: its blocks are those of {_resnets(depths)}, not of a ResNet-{backbone.depth}. {fix}."
        )
    for name, value in found.items():
        require_fitting(name, value, wanted[name].shape, source, "Is the file of another --depth?")
    backbone.load_state_dict(found, strict=False)
    return LoadReport(
        num_loaded=len(found),
        num_tensors=len(wanted),
        missing=_modules(wanted.keys() - found.keys(), found.keys()),
        unused=_modules({name for name in state if not name.endswith("num_batches_tracked")} - found.keys(), wanted),
    )


def _resnets(depths: Sequence[int]) -> str:
    return " or ".join(f"a ResNet-{depth}" for depth in depths) or "no ResNet known here"


def require_fitting(name: str, value: Tensor, shape: Sequence[int], source: str, hint: str) -> None:
    """UserError where the tensor `name` of the file `source` has another shape, for which `hint` tells the reason,
    is not of floating-point numbers, or holds one that is not finite."""
    if tuple(value.shape) != tuple(shape):
        raise UserError(f"{source}: {name} has shape {list(value.shape)}, the network's has {list(shape)}. {hint}")
    if value.layout != torch.strided or not value.is_floating_point() or value.is_meta:
        raise UserError(f"{source}: {name} is no plain tensor of floating-point numbers. Save it as one.")
    if not torch.isfinite(value).all():
        raise UserError(f"{source}: {name} holds values that are not finite. The file is broken: give another.")


def _modules(names: set[str], others: Any) -> list[str]:
    """`names`, with those of a top module that `others` have no part in drawn together to its name."""
    shared = {other.split(".")[0] for other in others}
    return sorted({name if name.split(".")[0] in shared else name.split(".")[0] for name in names})


def imagenet_state(depth: int, version: str = "V1") -> dict[str, Any]:
    """torchvision's ImageNet weights from PyTorch's cache, or downloaded to it.

    Version V1 is the published runs'; V2 is there for DEPTHS_OF_V2.
    """
    return published_state(get_model_weights(f"resnet{depth}")[f"IMAGENET1K_{version}"], "ImageNet weights")


def published_state(weights: WeightsEnum, what: str) -> dict[str, Any]:
    """The state dict of torchvision's `weights` from PyTorch's cache, or downloaded to it; UserError where it can't be.

    `what` they are is said in the message.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if not path.exists():
        try:
            weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as fault:  # no network or no space; a hash that is not the published one
            raise UserError(
                f"{weights.url}: the {what} could not be downloaded ({fault}). Put that file at {path}, or "
                "choose --weights none (start from random weights) or --weights FILE (a state dict of your own)."
            ) from fault
    return read_state_file(path)


def read_state_file(path: str | Path) -> dict[str, Any]:
    """The state dict in `path`; UserError where the file holds something else."""
    state = load_file(path, "a state dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: not a state dict (names and tensors). Save one with torch.save(model.state_dict()).")
    return state

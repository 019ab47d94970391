"""Loads weights into the ResNet: downloads ImageNet weights or reads a file, and refuses weights that don't fit."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from retinanet.checkpoints.state_dicts import looks_like, other_detector, read_state_file, resnet_prefix, without_prefix
from retinanet.detector.backbone import Backbone
from retinanet.detector.settings import BLOCKS, BOTTLENECKS, DEPTHS
from retinanet.runtime.errors import UserError

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.(\w+)\.")
# Names that torchvision's ResNet lacks, and the ResNets that have them.
VARIANTS = (
    (r"conv1\.\d", "a deep stem of several convolutions (ResNet-C, -D, -S or -T)"),
    (r"layer\d\.\d+\.downsample\.2\.", "average pooling in its shortcuts (ResNet-D)"),
    (r"layer\d\.\d+\.(se|se_module)\.", "squeeze-and-excitation blocks (SE-ResNet)"),
    (r"layer\d\.\d+\.(eca|cbam|attn|attention|gc)\w*\.", "attention in its blocks"),
    (r"layer\d\.\d+\.(convs|bns)\.|layer\d\.\d+\.conv2\.(radix|fc|bn0)", "split blocks (Res2Net or ResNeSt)"),
    (r"(layer\d\..*|maxpool\..*)(\.filt$|\.aa\.)|maxpool\.\d", "anti-aliased downsampling"),
    (r"layer\d\.\d+\.norm\d\.", "norms before its convolutions (ResNet-v2)"),
)


def depths_of(names: Iterable[str]) -> list[int]:
    """Returns the ResNet depths that fit tensors called `names`, which may cover only part of a network.

    A partial network may end at any block. If its last block completes a stage at some depths, only those depths are
    returned.
    """
    matches = [match for match in map(BLOCK.match, names) if match]
    counts: dict[int, int] = {}  # number of blocks by stage
    for match in matches:
        stage, block = int(match[1]), int(match[2])
        counts[stage] = max(counts.get(stage, 0), block + 1)
    if any(match[3] == "conv3" for match in matches):
        fitting = [depth for depth in DEPTHS if depth >= BOTTLENECKS]
    elif sum(counts.values()) > 1:  # at least one block is complete, without a third convolution
        fitting = [depth for depth in DEPTHS if depth < BOTTLENECKS]
    else:
        fitting = list(DEPTHS)
    last = max(counts, default=0)
    fitting = [depth for depth in fitting if all(n == BLOCKS[depth][at - 1] for at, n in counts.items() if at < last)]
    whole = [depth for depth in fitting if last and counts[last] == BLOCKS[depth][last - 1]]
    return whole or [depth for depth in fitting if not last or counts[last] < BLOCKS[depth][last - 1]]


class LoadReport(NamedTuple):
    """A report on loaded weights. If a list would name every tensor of a module, it names the module (`layer4`)."""

    num_loaded: int
    num_tensors: int
    missing: list[str]  # in the backbone but not in the file: they keep their initial values
    unused: list[str]  # in the file but not in the backbone
    unmeasured: list[str]  # batch norms whose statistics are not all in the file


def load_backbone(backbone: Backbone, state: Mapping[str, Any], source: str) -> LoadReport:
    """Fills `backbone` from `state`, which may lack some of the backbone's tensors and contain others.

    Raises UserError, without loading anything, if the depth or a shape differs, a value is not finite, or no name fits.
    """
    needed = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    if kind := other_detector(state):
        raise UserError(
            f"{source}: looks like {kind}, which can't be loaded as a whole. To start from its ResNet alone, save a "
            "state dict with only the tensors of the ResNet."
        )
    state = without_prefix(state, resnet_prefix(state)[0])
    weights = {name: value for name, value in state.items() if name in needed and isinstance(value, Tensor)}
    if not weights:
        raise UserError(
            f"{source}: {looks_like(state)}, and none of its {len(state)} names is a ResNet's "
            f"({', '.join(list(state)[:3])} ...). The names must be torchvision's: conv1.weight, layer1.0.conv1.weight "
            "..."
        )
    if variant := variant_of(state):
        raise UserError(
            f"{source}: a ResNet with {variant}; only torchvision's ResNets (in timm, resnet18 to resnet152) can be "
            "loaded. Use another file."
        )
    if backbone.depth not in (depths := depths_of(state)):
        fix = f"Use --depth {depths[0]}, or another file" if depths else "Use another file"
        raise UserError(f"{source}: its blocks are from {_resnets(depths)}, not from a ResNet-{backbone.depth}. {fix}.")
    for name, value in weights.items():
        require_fitting(name, value, needed[name].shape, source, "Check --depth.")
    backbone.load_state_dict(weights, strict=False)
    return LoadReport(
        num_loaded=len(weights),
        num_tensors=len(needed),
        missing=_modules(needed.keys() - weights.keys(), weights.keys()),
        unused=_modules({name for name in state if not name.endswith("num_batches_tracked")} - weights.keys(), needed),
        unmeasured=[
            name
            for name, module in backbone.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            and not {f"{name}.running_mean", f"{name}.running_var"} <= weights.keys()
        ],
    )


def variant_of(state: Mapping[str, Any]) -> str | None:
    """Describes what makes the ResNet in `state` a variant, such as a ResNeXt; returns None if it isn't one.

    The names in `state` must have no prefix.
    """
    for pattern, variant in VARIANTS:
        if any(re.match(pattern, name) for name in state):
            return variant
    shapes = {name: value.shape for name, value in state.items() if isinstance(value, Tensor) and value.ndim == 4}
    for name, shape in shapes.items():
        block = re.fullmatch(r"(layer\d\.\d+\.)conv2\.weight", name)
        if block and shape[1] and shape[0] > shape[1] and shape[0] % shape[1] == 0:
            return f"grouped convolutions, {shape[0] // shape[1]} groups in {name} (ResNeXt)"
        last = shapes.get(f"{block[1]}conv3.weight") if block else None
        if last and last[0] == 2 * shape[0]:
            return "blocks of twice the width (Wide ResNet)"
    own = re.compile(r"(layer\d\.\d+\.)?(conv\d|bn\d|downsample\.[01])\.(weight|bias|running_\w+|num_batches_tracked)")
    others = [name for name in state if name.startswith(("conv1.", "bn1.", "layer")) and not own.fullmatch(name)]
    return f"tensors that torchvision's lacks ({', '.join(others[:3])})" if others else None


def _resnets(depths: Sequence[int]) -> str:
    return " or ".join(f"a ResNet-{depth}" for depth in depths) or "an unknown ResNet"


def require_fitting(name: str, value: Tensor, shape: Sequence[int], source: str, hint: str) -> None:
    """Raises UserError unless the tensor `name` of `source` is floating-point, finite and of this `shape`.

    If the shape differs, the message ends with `hint`.
    """
    if tuple(value.shape) != tuple(shape):
        raise UserError(f"{source}: {name} has shape {list(value.shape)}, but the network needs {list(shape)}. {hint}")
    if value.layout != torch.strided or not value.is_floating_point() or value.is_meta:
        raise UserError(f"{source}: {name} is not a plain tensor of floating-point numbers. Save it as one.")
    if not torch.isfinite(value).all():
        raise UserError(f"{source}: {name} holds values that are not finite. The file is broken; use another.")


def _modules(names: set[str], others: Any) -> list[str]:
    """Returns `names`, sorted; a name is shortened to its top module if none of the `others` is in that module."""
    shared = {other.split(".")[0] for other in others}
    return sorted({name if name.split(".")[0] in shared else name.split(".")[0] for name in names})


def imagenet_state(depth: int, version: str = "V1") -> dict[str, Any]:
    """Returns torchvision's ImageNet weights, which are downloaded once to PyTorch's cache.

    --weights imagenet uses V1; --weights imagenet_v2 uses V2, which exists only for DEPTHS_OF_V2.
    """
    from torchvision.models import get_model_weights  # not at the top: torchvision takes 1.5 s to import

    return published_state(get_model_weights(f"resnet{depth}")[f"IMAGENET1K_{version}"], "ImageNet weights")


def published_state(weights: "WeightsEnum", what: str) -> dict[str, Any]:
    """Returns the state dict of torchvision's `weights`, which is downloaded once to PyTorch's cache.

    Raises UserError if the download fails; the message calls the weights `what`.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if not path.exists():
        try:
            weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:  # no network, no space, or a wrong hash
            raise UserError(
                f"{weights.url}: the {what} could not be downloaded ({error}). Put that file at {path}, or "
                "choose --weights none (start from random weights) or --weights FILE (your own state dict)."
            ) from error
    return read_state_file(path)

"""Reads weights files of any origin, finds the state dict in them, and guesses which network it belongs to."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet.checkpoints.safetensors_file import SUFFIX, read_safetensors
from retinanet.checkpoints.torch_files import load_file
from retinanet.runtime.errors import UserError

DEEPEST = 3  # dicts around a state dict; training scripts have at most two
# A tensor of torchvision's ResNet, after any prefix.
RESNET = re.compile(
    r"((?:.*?\.)??)((?:conv1|bn1)\.\w+|layer[1-4]\.\d{1,3}\.(?:(?:conv|bn)[1-3]|downsample\.[01])\.\w+)"
)
# Patterns of names that identify a network, and words for that network. The first match counts.
OTHER_DETECTORS = (
    (r"(^|\.)(roi_heads|rpn|rpn_head|proposal_generator)\.", "a two-stage detector, such as Faster R-CNN"),
    (r"(^|\.)bbox_head\.", "a detector from mmdetection"),
    (r"bbox_ctrness", "an FCOS detector"),
    (r"(^|\.)head\.(cls_score|cls_subnet)\.", "a RetinaNet from detectron2"),
    (r"(^|\.)(class_embed|bbox_embed|query_embed)\.", "a detector of the DETR family"),
    (r"(^|\.)anchor_generator|(^|\.)head\.(classification|regression)_head\.module_list\.", "an SSD detector"),
    (r"(^|\.)model\.\d+\.(m\.\d+\.)?(cv\d|conv|bn)\.", "a YOLO detector"),
    (r"(^|\.)(pyramid|classification_head\.(tower|output))\.", "the weights of a detector of this project"),
    (r"(^|\.)(cls_head|box_head|backbones)\.", "a detector from NVIDIA's ODTK"),
    (r"(^|\.)(classificationModel|regressionModel)\.", "a detector from yhenon's pytorch-retinanet"),
    (r"(^|\.)head\.(classification|regression)_head\.", "a detector from torchvision"),
)
OTHER_NETWORKS = (
    (r"(^|\.)stages\.\d+\.blocks\.\d+\.norm1\.", "a ResNet-v2, such as BiT, whose norms precede the convolutions"),
    (r"(^|\.)encoder\.stages\.\d+\.layers\.\d+\.layer\.", "a ResNet from transformers, which has its own names"),
    (r"(^|\.)blocks\.\d+\.attn\.|(^|\.)encoder_layer_\d+\.|(^|\.)attention\.", "a vision transformer"),
    (r"(^|\.)stages\.\d+\.blocks\.\d+\.(conv_dw|gamma)|block_?\d*\.layer_scale|dwconv", "a ConvNeXt"),
    (r"^(features|classifier|avgpool)\.", "a VGG, MobileNet or EfficientNet"),
)


def read_file(path: Path, what: str) -> Any:
    """Returns the content of `path`, a PyTorch or safetensors file.

    Raises UserError in the same cases as load_file or, for a safetensors file, read_safetensors.
    """
    return read_safetensors(path, what) if path.suffix == SUFFIX else load_file(path, what)


def read_state_file(path: str | Path) -> dict[str, Any]:
    """Returns the state dict in `path`, without the wrappers of training scripts.

    Raises UserError in the same cases as read_file and state_in.
    """
    return state_in(read_file(Path(path), "a state dict"), path)


def state_in(content: Any, path: str | Path) -> dict[str, Any]:
    """Returns the state dict in `content`, the content of `path`, even if it is nested in other dicts.

    If there are several, returns the one with the most tensors of a ResNet. If several tie, returns a
    teacher's (see is_teacher) if there is one, otherwise the first. If there is none, returns `content` itself if it is
    a dict with names as keys; otherwise, raises UserError.
    """
    found = [(name, state) for name, state in _state_dicts(content) if any(map(is_tensor, state.values()))]
    if found:
        return max(found, key=lambda named: (resnet_prefix(named[1])[1], is_teacher(named[0])))[1]
    if isinstance(content, dict) and all(isinstance(name, str) for name in content):
        return content
    raise UserError(
        f"{path}: not a state dict (names and tensors). Save one with torch.save(model.state_dict(), 'weights.pt')."
    )


def _state_dicts(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields `content` and the dicts nested in it, with their dotted paths; skips dicts with non-string keys."""
    if depth <= DEEPEST and isinstance(content, dict) and all(isinstance(key, str) for key in content):
        yield name, content
        for key, inner in content.items():
            yield from _state_dicts(inner, f"{name}.{key}", depth + 1)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def is_teacher(name: str) -> bool:
    """Returns True if `name` names a teacher network.

    A teacher's weights are the average of a student's, and usually better.
    """
    return "teacher" in name


def resnet_prefix(names: Iterable[str]) -> tuple[str, int]:
    """Returns the prefix with the most ResNet names after it, and the number of these names.

    After a prefix, only names of blocks count, because other networks have a conv1, too. If several prefixes tie,
    returns a teacher's if there is one, otherwise the first.
    """
    counts = Counter(
        match[1] for match in map(RESNET.fullmatch, names) if match and (not match[1] or match[2].startswith("layer"))
    )
    return max(counts.items(), key=lambda item: (item[1], is_teacher(item[0])), default=("", 0))


def without_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns `state` with `prefix` removed from the names that have it.

    Entries without the prefix stay, unless their name equals one of the shortened names.
    """
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in state.items() if not name.startswith(prefix)} | inner


def other_detector(names: Iterable[str]) -> str | None:
    """Returns the kind of detector to which tensors with these `names` belong; None if no kind is recognised."""
    return _kind(names, OTHER_DETECTORS)


def looks_like(names: Iterable[str]) -> str:
    """Returns a phrase to put after a file's name: a guess at the network whose tensors have these `names`."""
    names = list(names)
    kind = _kind(names, OTHER_DETECTORS) or _kind(names, OTHER_NETWORKS) or "another network's weights"
    return f"looks like {kind}" if names else "holds nothing"


def _kind(names: Iterable[str], kinds: Iterable[tuple[str, str]]) -> str | None:
    text = "\n".join(names)
    return next((kind for pattern, kind in kinds if re.search(pattern, text, re.MULTILINE)), None)

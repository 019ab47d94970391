"""Loads the weights of a whole detector: a checkpoint of this project, or torchvision's COCO detector."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model
from retinanet.checkpoints.pretrained_backbone import published_state, require_fitting
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, cell_anchors
from retinanet.detector.boxes import CENTRE_DEVIATION, SIZE_DEVIATION
from retinanet.detector.model import RetinaNet
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.train import differences

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

NO_CLASSES = ("__background__", "N/A")
CLASSIFICATION, REGRESSION = "head.classification_head.cls_logits", "head.regression_head.bbox_reg"


@cache
def published_weights() -> "WeightsEnum":
    """Returns torchvision's description of its detector's weights, without the weights."""
    from torchvision.models import get_model_weights  # not at the top: torchvision takes 1.5 s to import

    return get_model_weights("retinanet_resnet50_fpn_v2")["COCO_V1"]


def categories() -> list[str]:
    """Returns the names of torchvision's classes, indexed by COCO id."""
    return published_weights().meta["categories"]


class ClassReport(NamedTuple):
    """The classes that keep pretrained weights, and the classes that start from initial weights."""

    kept: list[str]
    new: list[str]


def load_checkpoint_weights(
    network: RetinaNet, class_names: Sequence[str], checkpoint: Checkpoint, path: Path
) -> ClassReport:
    """Fills `network` from the `checkpoint` in `path`, with the averaged weights if there are any.

    Raises UserError, without loading anything, if the network has another architecture or the weights are broken.
    """
    if wrong := differences(checkpoint.architecture, network.architecture):
        both = ", and with ".join(f"{saved_flag}, not {new_value}" for saved_flag, new_value in wrong)
        fix = " ".join(saved_flag for saved_flag, _ in wrong)
        raise UserError(f"{path}: was trained with {both}. Use {fix}, or other --weights.")
    weights = build_model(checkpoint, path, averaged=True).state_dict()
    report = _take_classes(weights, network, class_names, checkpoint.class_names)
    network.load_state_dict(weights)
    return report


def _take_classes(
    weights: dict[str, Tensor], network: RetinaNet, class_names: Sequence[str], known: Sequence[str | None]
) -> ClassReport:
    """Converts the classification output in `weights` from the classes `known` to the classes `class_names`.

    A class whose name is known, ignoring case, keeps its weights; other classes get the network's initial weights.
    """
    rows = {name.casefold(): row for row, name in reversed(list(enumerate(known))) if name is not None}
    kept = [label for label, name in enumerate(class_names) if name.casefold() in rows]
    kept_rows = [rows[class_names[label].casefold()] for label in kept]
    num_anchors = network.architecture.anchors.per_cell
    for name, value in network.classification_head.output.state_dict(prefix="classification_head.output.").items():
        by_class = value.clone().unflatten(0, (num_anchors, -1))  # [anchors of a cell, C, ...]
        by_class[:, kept] = weights[name].unflatten(0, (num_anchors, -1))[:, kept_rows].to(by_class)
        weights[name] = by_class.flatten(0, 1)
    return ClassReport(
        kept=[class_names[label] for label in kept],
        new=[name for label, name in enumerate(class_names) if label not in kept],
    )


def coco_state() -> dict[str, Any]:
    """Returns the weights of torchvision's COCO detector, which are downloaded once to PyTorch's cache."""
    return published_state(published_weights(), "COCO detector's weights")


def is_detector(state: Mapping[str, Any]) -> bool:
    """Returns True if `state` is the state dict of torchvision's detector rather than of a ResNet."""
    return any(name.startswith("head.classification_head.") for name in state)


def load_detector(network: RetinaNet, class_names: Sequence[str], state: Mapping[str, Any], source: str) -> ClassReport:
    """Fills `network` from the `state` of torchvision's detector; only classes and anchor shapes may differ.

    Raises UserError, without loading anything, if a tensor is missing, has another shape or is not finite.
    """
    num_anchors, shapes = DEFAULT_SHAPES.per_cell, network.architecture.anchors
    if shapes.per_cell != num_anchors:
        raise UserError(
            f"{source}: a detector with {counted(num_anchors, 'anchor')} per cell, but the network has "
            f"{shapes.per_cell}. Choose --anchor_ratios and --anchor_octaves that make as many, or other --weights."
        )
    state = {_newer_name(name): value for name, value in state.items()}
    loaded = {}
    for name, value in network.state_dict().items():
        if name.startswith("level_") or name.endswith("num_batches_tracked"):
            continue
        theirs = _source_name(name)
        shape = list(value.shape)
        if theirs.startswith(CLASSIFICATION):
            shape[0] = num_anchors * len(categories())
        if not isinstance(state.get(theirs), Tensor):
            raise UserError(f"{source}: a detector without {theirs}. Use torchvision's retinanet_resnet50_fpn_v2.")
        require_fitting(theirs, state[theirs], shape, source, "Use retinanet_resnet50_fpn_v2 with the COCO classes.")
        loaded[name] = state[theirs]

    known = [None if name in NO_CLASSES else name for name in categories()]
    report = _take_classes(loaded, network, class_names, known)
    code = box_code(shapes)
    weight, bias = (f"regression_head.output.{part}" for part in ("weight", "bias"))
    loaded[weight] = loaded[weight] * code.factor.view(-1, 1, 1, 1)
    loaded[bias] = loaded[bias] * code.factor + code.summand
    loaded |= {"level_scale": code.level_scale, "level_shift": code.level_shift}
    network.load_state_dict(loaded, strict=False)
    return report


def _newer_name(name: str) -> str:
    """Returns a tensor's current name in torchvision, whose pyramid now consists of blocks: inner_blocks.0.0.weight."""
    parts = name.split(".")
    is_old = name.startswith(("backbone.fpn.inner_blocks.", "backbone.fpn.layer_blocks.")) and len(parts) == 5
    return ".".join((*parts[:4], "0", parts[4])) if is_old else name


def _source_name(name: str) -> str:
    """Returns torchvision's name for the network's tensor `name`."""
    top, _, rest = name.partition(".")
    if top == "backbone":
        return f"backbone.body.{rest}"
    module, _, part = rest.partition(".")
    if top == "pyramid":
        level = int(module[-1])
        if level > 5:
            return f"backbone.fpn.extra_blocks.p{level}.{part}"
        return f"backbone.fpn.{'inner' if module.startswith('lateral') else 'layer'}_blocks.{level - 3}.0.{part}"
    if module == "output":
        return f"{CLASSIFICATION if top == 'classification_head' else REGRESSION}.{part}"
    layer, _, part = part.partition(".")
    return f"head.{top}.conv.{int(layer) // 3}.{int(layer) % 3}.{part}"  # a block: convolution, norm and ReLU


class BoxCode(NamedTuple):
    """Converts torchvision's deltas to this project's: (raw * factor + summand) * level_scale + level_shift."""

    factor: Tensor  # float64 [9 * 4]
    summand: Tensor  # float64 [9 * 4]
    level_scale: Tensor  # float64 [5, 9, 4], near 1
    level_shift: Tensor  # float64 [5, 9, 4], near 0


def box_code(shapes: AnchorShapes = DEFAULT_SHAPES) -> BoxCode:
    """Returns the conversion from torchvision's anchors and deltas to this project's, with anchors of `shapes`.

    torchvision centres anchors on the upper left corner of their cell, rounds their sides to whole, even pixels, and
    doesn't divide deltas by standard deviations. Let s be the stride, w the width of torchvision's anchor, v the width
    of our anchor, and dx torchvision's delta. The centre of torchvision's box is dx * w away from the corner; the
    centre of our box, with delta d, is s / 2 + 0.1 * d * v away from it. So d = 10 * dx * w / v - 5 * s / v. For the
    width, d = 5 * dw + 5 * log(w / v). The ratio w / v differs by level, but is near 1 if `shapes` are torchvision's.
    So most of the conversion goes into the output convolution, which is still trained, and only the rest into the level
    code. (Both detectors limit a box's growth to the same factor, but relative to their own anchors.)
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sides = [tuple(int(DEFAULT_SHAPES.side * stride * scale) for scale in DEFAULT_SHAPES.scales) for stride in STRIDES]
    theirs = torch.stack(AnchorGenerator(sides, (DEFAULT_SHAPES.ratios,) * len(STRIDES)).cell_anchors).double()
    ours = torch.stack([cell_anchors(stride, shapes) for stride in STRIDES])
    our_sizes = ours[..., 2:] - ours[..., :2]  # [5, 9, 2]
    ratio = (theirs[..., 2:] - theirs[..., :2]) / our_sizes
    offset = -STRIDES[0] / 2 / our_sizes[0] / CENTRE_DEVIATION  # [9, 2], the same on every level
    return BoxCode(
        factor=torch.tensor([1 / CENTRE_DEVIATION] * 2 + [1 / SIZE_DEVIATION] * 2).double().repeat(shapes.per_cell),
        summand=torch.cat([offset, torch.zeros_like(offset)], dim=1).flatten(),
        level_scale=torch.cat([ratio, torch.ones_like(ratio)], dim=2),
        level_shift=torch.cat([(1 - ratio) * offset, ratio.log() / SIZE_DEVIATION], dim=2),
    )

"""Loads the weights of a whole detector: a checkpoint of this project, or the state dict of a published detector."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from retinanet.checkpoints.checkpoint import Checkpoint, build_model
from retinanet.checkpoints.pretrained_backbone import depths_of, published_state, require_fitting, variant_of
from retinanet.checkpoints.published_detectors import OURS, Anchors, PublishedDetector
from retinanet.detector.anchors import STRIDES, AnchorShapes, cell_anchors
from retinanet.detector.boxes import CENTRE_DEVIATION, SIZE_DEVIATION
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import Architecture
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.train import differences

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

NO_CLASSES = ("__background__", "N/A")
CLASSIFICATION, REGRESSION = "classification_head.output", "regression_head.output"


@cache
def published_weights() -> "WeightsEnum":
    """Returns torchvision's description of its detector's weights, without the weights."""
    from torchvision.models import get_model_weights  # not at the top: torchvision takes 1.5 s to import

    return get_model_weights("retinanet_resnet50_fpn_v2")["COCO_V1"]


def categories() -> list[str]:
    """Returns the names of torchvision's classes, indexed by COCO id."""
    return published_weights().meta["categories"]


class ClassReport(NamedTuple):
    """The classes that keep pretrained weights, the classes that start from initial weights, and notes."""

    kept: list[str]
    new: list[str]
    notes: list[str]


def load_checkpoint_weights(
    network: RetinaNet, class_names: Sequence[str], checkpoint: Checkpoint, path: Path
) -> ClassReport:
    """Fills `network` from the `checkpoint` in `path`, with the averaged weights if there are any.

    Raises UserError, without loading anything, if the network has a different architecture or the weights are broken.
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
        notes=[],
    )


def coco_state() -> dict[str, Any]:
    """Returns the weights of torchvision's COCO detector, which are downloaded once to PyTorch's cache."""
    return published_state(published_weights(), "COCO detector's weights")


def architecture_of(detector: PublishedDetector, shapes: AnchorShapes, source: str) -> Architecture:
    """Returns the architecture of our network, with anchors of the given `shapes`, that fits the weights of `detector`.

    Raises UserError if no such architecture fits, or if the tensors don't determine it.
    """
    (prefix,) = detector.source.names["backbone"]
    resnet = {name.removeprefix(prefix): value for name, value in detector.state.items() if name.startswith(prefix)}
    if variant := variant_of(resnet):
        raise UserError(f"{source}: {detector.source.title}, but its ResNet has {variant}. Use another file.")
    depths = depths_of(resnet)
    lateral, coarse = detector.shape_of("pyramid.lateral5.weight"), detector.shape_of("pyramid.output6.weight")
    if len(depths) != 1 or len(lateral) != 4 or len(coarse) != 4:
        reason = "no ResNet of a known depth" if len(depths) != 1 else "no complete feature pyramid"
        raise UserError(f"{source}: {detector.source.title}, but with {reason}. Use a complete file.")
    is_identity = box_code(_anchors_of(detector, shapes, source), shapes).is_identity()
    return Architecture(
        depth=depths[0],
        channels=lateral[0],
        head_norm="group" if detector.has_norms else "none",
        anchors=shapes,
        iou_branch=detector.shape_of(f"{REGRESSION}.bias") == (5 * shapes.per_cell,),
        level_code="level_scale" in detector.state or not is_identity,
        p6_from_p5=coarse[1] != lateral[1],
    )


def load_detector(
    network: RetinaNet, class_names: Sequence[str], detector: PublishedDetector, source: str
) -> ClassReport:
    """Fills `network` from the weights of a published `detector`, which may differ only in classes and anchor shapes.

    Raises UserError, without loading anything, if a tensor is missing, has the wrong shape or is not finite.
    """
    architecture = network.architecture
    shapes, num_outputs = architecture.anchors, network.regression_head.num_outputs
    anchors = _anchors_of(detector, shapes, source)
    num_anchors = len(anchors.kinds)
    num_rows = (detector.shape_of(f"{CLASSIFICATION}.weight") or (0,))[0] // num_anchors
    order = _order(anchors, shapes)
    loaded = {}
    for name, value in network.state_dict().items():
        is_computed = name.startswith("level_") and detector.source is not OURS
        if is_computed or name.endswith("num_batches_tracked"):
            continue
        theirs, shape = detector.name_of(name), list(value.shape)
        if name.startswith(CLASSIFICATION):
            shape[0] = num_anchors * num_rows
        if not isinstance(detector.state.get(theirs), Tensor):
            raise UserError(f"{source}: a detector without {theirs}. Use a complete file.")
        require_fitting(theirs, detector.state[theirs], shape, source, "Check --depth and --channels.")
        loaded[name] = detector.state[theirs]
        if name.startswith((CLASSIFICATION, REGRESSION)):
            loaded[name] = loaded[name].unflatten(0, (num_anchors, -1))[order].flatten(0, 1)

    known, notes = _known_classes(num_rows, class_names, detector.source.num_background)
    report = _take_classes(loaded, network, class_names, known)
    code = box_code(anchors, shapes)
    for part in ("weight", "bias"):
        name = f"{REGRESSION}.{part}"
        loaded[name] = code.shared(loaded[name], num_outputs, with_summand=part == "bias")
    if architecture.level_code:
        loaded = {"level_scale": code.level_scale, "level_shift": code.level_shift} | loaded
    if detector.source.frozen_eps is not None and detector.has_fixed_norms and not detector.has_norms:
        _change_eps(loaded, network.backbone, detector.source.frozen_eps)
        notes.append(
            "its batch norms are frozen, and their epsilon isn't in the file; it is taken to be "
            f"{detector.source.frozen_eps:g}, as in the published COCO weights"
        )
    network.load_state_dict(loaded, strict=False)
    return report._replace(notes=notes + [detector.source.note] * bool(detector.source.note))


def _anchors_of(detector: PublishedDetector, shapes: AnchorShapes, source: str) -> Anchors:
    """Returns the anchors of `detector`. Raises UserError if `shapes` give a different number per cell."""
    anchors = detector.source.anchors(detector.content, shapes)
    if len(anchors.kinds) != shapes.per_cell:
        raise UserError(
            f"{source}: a detector with {counted(len(anchors.kinds), 'anchor')} per cell, but the network has "
            f"{shapes.per_cell}. Choose --anchor_ratios and --anchor_octaves that give {len(anchors.kinds)}, or other "
            "--weights."
        )
    return anchors


def _known_classes(
    num_rows: int, class_names: Sequence[str], num_background: int
) -> tuple[list[str | None], list[str]]:
    """Returns two lists: the class of each of the `num_rows` outputs per anchor (None if unknown), and notes to print.

    A state dict has no class names. If it has as many classes as COCO, they are assumed to be COCO's; if it has as many
    as `class_names`, they are assumed to be these, in the same order.
    """
    coco = [None if name in NO_CLASSES else name for name in categories()]
    if num_background and num_rows == len(coco):
        return coco, []
    num_classes = num_rows - num_background
    if not num_background and num_classes == len([name for name in coco if name]):
        names: list[str | None] = [name for name in coco if name]
        is_doubtful = num_classes == len(class_names) and {*class_names} != {*names}
        return names, [f"the file has {num_classes} classes without names, assumed to be COCO's"] * is_doubtful
    if num_classes == len(class_names):
        return [None] * num_background + list(class_names), [
            f"the file has {counted(num_classes, 'class')} without names, the same number as this set, and they are "
            f"assumed to be in the same order: {', '.join(class_names)}"
        ]
    return [None] * num_rows, [
        f"the file has {counted(num_classes, 'class')} without names, which matches neither COCO nor this "
        f"set ({len(class_names)}), so all classes start from scratch"
    ]


def _change_eps(weights: dict[str, Tensor], backbone: nn.Module, eps: float) -> None:
    """Changes the batch norms in `weights`, which were trained with `eps`, so that they fit the backbone's epsilon.

    The difference goes into the variance, where it causes the least rounding error, or into the scale if the variance
    is small.
    """
    for name, module in backbone.named_modules(prefix="backbone"):
        if isinstance(module, nn.BatchNorm2d):
            variance, scale = (weights[f"{name}.{part}"].double() for part in ("running_var", "weight"))
            # If variance and scale are both 0, the channel is switched off, and stays so.
            theirs = (variance + eps).clamp(min=torch.finfo(torch.float32).tiny)
            is_small = variance < 1000 * module.eps
            weights[f"{name}.running_var"] = torch.where(is_small, variance, theirs - module.eps)
            weights[f"{name}.weight"] = torch.where(is_small, scale * ((variance + module.eps) / theirs).sqrt(), scale)


class BoxCode(NamedTuple):
    """Converts another network's deltas to this project's: (raw * factor + summand) * level_scale + level_shift."""

    factor: Tensor  # float64 [anchors per cell, 4]
    summand: Tensor  # float64 [anchors per cell, 4]
    level_scale: Tensor  # float64 [levels, anchors per cell, 4], near 1
    level_shift: Tensor  # float64 [levels, anchors per cell, 4], near 0

    def shared(self, values: Tensor, num_outputs: int, *, with_summand: bool) -> Tensor:
        """Converts `values`, the weight or bias of an output convolution, so that its deltas need only the level code.

        Of the `num_outputs` per anchor, the first 4 are deltas.
        """
        parts = values.unflatten(0, (-1, num_outputs))  # [anchors per cell, outputs, ...]
        deltas = parts[:, :4] * self.factor.view(*self.factor.shape, *[1] * (values.ndim - 1))
        if with_summand:
            deltas = deltas + self.summand
        return torch.cat([deltas, parts[:, 4:].to(deltas)], dim=1).flatten(0, 1)

    def is_identity(self) -> bool:
        """Returns True if the level code changes nothing, so the output convolution can do the whole conversion."""
        return bool((self.level_scale == 1).all() and (self.level_shift == 0).all())


def _order(anchors: Anchors, shapes: AnchorShapes) -> list[int]:
    """Pairs our anchors with the other network's, both sorted by shape; returns each one's row in `anchors`."""
    ours = list(product(shapes.ratios, shapes.scales))
    rows = dict(zip(_ranked(ours), _ranked(anchors.kinds), strict=True))
    return [rows[anchor] for anchor in range(len(ours))]


def _ranked(kinds: Sequence[tuple[float, float]]) -> list[int]:
    return sorted(range(len(kinds)), key=kinds.__getitem__)


def box_code(anchors: Anchors, shapes: AnchorShapes) -> BoxCode:
    """Returns the conversion of deltas from another network's `anchors` to this project's anchors of `shapes`.

    Let w be the width of the other network's anchor, v the width of ours, c the distance from our anchor's centre to
    theirs, dx the other network's delta and s the number that its deltas are divided by in training. The centre of
    their box is c + s * dx * w away from the centre of our anchor; the centre of our box, with our delta d, is 0.1 * d
    * v away from it. So d = 10 * s * dx * w / v + 10 * c / v. For the width, d = 5 * s * dw + 5 * log(w / v). The ratio
    w / v differs by level if the other network rounds its anchors, but is near 1 if `shapes` are its own. So most of
    the conversion goes into the output convolution, which is still trained, and only the rest into the level code
    (level_scale and level_shift). (Limits on how much a box may grow aren't converted: each detector applies its own
    limit, relative to its own anchors.)
    """
    theirs = anchors.boxes[:, _order(anchors, shapes)]
    ours = torch.stack([cell_anchors(stride, shapes) for stride in STRIDES])
    our_sizes = ours[..., 2:] - ours[..., :2]  # [levels, anchors per cell, 2]
    ratio = (theirs[..., 2:] - theirs[..., :2]) / our_sizes
    offset = (theirs[..., :2] + theirs[..., 2:]) / 2 / our_sizes / CENTRE_DEVIATION
    centre, size = anchors.deviations
    factor = torch.tensor([centre / CENTRE_DEVIATION] * 2 + [size / SIZE_DEVIATION] * 2).double()
    return BoxCode(
        factor=factor.repeat(shapes.per_cell, 1),
        summand=torch.cat([offset[0], torch.zeros_like(offset[0])], dim=1),
        level_scale=torch.cat([ratio, torch.ones_like(ratio)], dim=2),
        level_shift=torch.cat([offset - ratio * offset[0], ratio.log() / SIZE_DEVIATION], dim=2),
    )

"""A training that starts from a checkpoint of this suite, with the same classes or others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model
from retinanet.detector.model import RetinaNet
from retinanet.runtime.errors import UserError
from retinanet.settings.train import Network


class ClassReport(NamedTuple):
    """The class names whose weights were kept, and those that start from initial weights."""

    kept: list[str]
    new: list[str]


def require_fitting(checkpoint: Checkpoint, settings: Network, path: Path) -> None:
    """UserError, with both values, where the network that is asked for is not the checkpoint's."""
    shapes, asked = checkpoint.anchors, settings.anchors.shapes
    if checkpoint.iou_branch != settings.iou_branch:
        had, flag = ("with", "--iou_branch") if checkpoint.iou_branch else ("without", "--no_iou_branch")
        raise UserError(f"{path}: was trained {had} --iou_branch. Give {flag}, or other --weights.")
    for name, own, given in (
        ("--depth", checkpoint.depth, settings.depth),
        ("--channels", checkpoint.channels, settings.channels),
        ("--head_norm", checkpoint.head_norm, settings.head_norm),
        ("--anchor_scale", shapes.side, asked.side),
        ("--anchor_ratios", _words(shapes.ratios), _words(asked.ratios)),
        ("--anchor_octaves", _words(shapes.scales), _words(asked.scales)),
    ):
        if own != given:
            octaves = name == "--anchor_octaves"
            fix = f"Give {name} {len(shapes.scales) if octaves else own}"
            of_what = " (sizes within an octave)" if octaves else ""
            raise UserError(f"{path}: was trained with {name} {own}{of_what}, not {given}. {fix}, or other --weights.")


def load_earlier(network: RetinaNet, class_names: Sequence[str], checkpoint: Checkpoint, path: Path) -> ClassReport:
    """Fill `network` from the `checkpoint` in `path`, its averaged weights if it has any.

    A class whose name the checkpoint knows, in upper or lower case, keeps its weights; the others keep their start.
    UserError, and nothing is loaded, where its weights are broken.
    """
    earlier = build_model(checkpoint, path, averaged=True).state_dict()
    rows = {name.casefold(): row for row, name in reversed(list(enumerate(checkpoint.class_names)))}
    kept = [label for label, name in enumerate(class_names) if name.casefold() in rows]
    kept_rows = [rows[class_names[label].casefold()] for label in kept]
    for name, value in network.classification_head.output.state_dict(prefix="classification_head.output.").items():
        by_class = _by_class(value.clone(), network)
        by_class[:, kept] = _by_class(earlier[name], network)[:, kept_rows]
        earlier[name] = by_class.flatten(0, 1)
    network.load_state_dict(earlier)
    return ClassReport(
        kept=[class_names[label] for label in kept],
        new=[name for label, name in enumerate(class_names) if label not in kept],
    )


def _by_class(value: Tensor, network: RetinaNet) -> Tensor:
    """The output convolution's weight or bias by anchor and class: [anchors of a cell, C, ...]."""
    return value.unflatten(0, (network.anchor_shapes.per_cell, -1))


def _words(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)

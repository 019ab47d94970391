"""Describes the kinds of RetinaNet whose weights can be loaded exactly: their tensor names, anchors and box codes.

Each kind is a Source. To add one, write its Source here and its reference implementation in tests/support/published.py.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.checkpoints.state_dicts import is_teacher, is_tensor
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, cell_anchors
from retinanet.detector.boxes import CENTRE_DEVIATION, SIZE_DEVIATION
from retinanet.detector.settings import DEPTHS
from retinanet.runtime.errors import UserError


class Anchors(NamedTuple):
    """A network's anchors, in the order of its outputs, and the standard deviations that its deltas are divided by."""

    kinds: list[tuple[float, float]]  # ratio (height / width) and size of each; only their ranks matter
    boxes: Tensor  # float64 [levels, anchors per cell, 4], relative to the centre of the cell
    deviations: tuple[float, float] = (1.0, 1.0)  # of centres and of sizes


@dataclass(frozen=True)
class Source:
    """A family of published networks, named by `title`.

    `names` maps the parts of our network to the names that the source gives them, newest first. In a name, {head} is
    one of `heads`; {level} counts the levels from 3 to 7, and {row} counts them from 0; {layer} counts the convolutions
    of a tower from 0, and {number} counts them from 1; {place} counts all modules of the source's tower, ReLUs
    included; and {index} counts the modules of our own tower.
    """

    title: str
    heads: tuple[str, str]  # for classification and regression
    names: Mapping[str, tuple[str, ...]]
    anchors: Callable[[Any, AnchorShapes], Anchors]  # from the content of the file and the shapes of our anchors
    num_background: int = 0  # classes before the first real one
    # The epsilon of batch norms in files without num_batches_tracked; None if it is the usual one.
    frozen_eps: float | None = None
    inner: str = r"(?!)"  # a regular expression for the part of the names to ignore
    obstacle: Callable[[Any, Mapping[str, Any]], str | None] = lambda _content, _state: None  # why a file can't be used
    note: str = ""  # what differs from the published network after loading


class PublishedDetector(NamedTuple):
    """The weights of a published network, as they are in a file."""

    source: Source
    state: dict[str, Any]  # without prefixes
    content: Any  # of the whole file

    def names_of(self, name: str) -> list[str]:
        """Returns the names that the tensor `name` of our network may have in the file."""
        top, _, rest = name.partition(".")
        module, _, part = rest.partition(".")
        names, heads = self.source.names, dict(zip(HEADS, self.source.heads, strict=True))
        if not rest:
            return [name]
        if top == "backbone":
            return [f"{prefix}{rest}" for prefix in names["backbone"]]
        if top == "pyramid":
            level = int(module[-1])
            kind = "coarse" if level > 5 else module[:-1]
            return [f"{text.format(level=level, row=level - 3)}.{part}" for text in names[kind]]
        if module == "output":
            return [f"{text.format(head=heads[top])}.{part}" for text in names[top]]
        index, _, part = part.partition(".")
        layer, place = divmod(int(index), 3 if self.has_norms else 2)
        fields = {"head": heads[top], "layer": layer, "number": layer + 1, "place": 2 * layer, "index": index}
        return [f"{text.format(**fields)}.{part}" for text in names["norm" if place else "convolution"]]

    def name_of(self, name: str) -> str:
        """Returns the name that the tensor `name` of our network has in the file or, if it isn't there, should have."""
        names = self.names_of(name)
        return next((other for other in names if other in self.state), names[0])

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the tensor that is called `name` in our network; () if it isn't in the file."""
        value = self.state.get(self.name_of(name))
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    @property
    def has_norms(self) -> bool:
        """Returns True if the heads have norms after their convolutions."""
        texts = self.source.names.get("norm", ())
        return any(text.format(head=self.source.heads[0], layer=0, index=1) + ".weight" in self.state for text in texts)

    @property
    def has_fixed_norms(self) -> bool:
        """Returns True if the file has no num_batches_tracked, as with torchvision's FrozenBatchNorm2d."""
        return not any(name.endswith("num_batches_tracked") for name in self.state)


def recognised(state: Mapping[str, Any], content: Any, path: object) -> PublishedDetector | None:
    """Returns the published network whose weights are in `state`, which comes from the `content` of the file at `path`.

    Names may have any prefix. If there are several networks, the teacher (see is_teacher) is used or, without a
    teacher, the first. Returns None if there is no known detector. Raises UserError if the detector is a variant that
    can't be used.
    """
    for source in SOURCES:
        outputs = [
            f"{source.names[part][0].format(head=head)}.weight" for part, head in zip(HEADS, source.heads, strict=True)
        ]
        ends = [name.removesuffix(outputs[0]) for name in state if name.endswith(outputs[0])]
        prefixes = [prefix for prefix in ends if prefix + outputs[1] in state and prefix[-1:] in ("", ".")]
        if not prefixes:
            continue
        chosen = max(prefixes, key=is_teacher)
        inner = {name.removeprefix(chosen): value for name, value in state.items() if name.startswith(chosen)}
        if reason := source.obstacle(content, inner):
            raise UserError(f"{path}: looks like {source.title}, but {reason}. Use another file.")
        return PublishedDetector(
            source, {re.sub(source.inner, "", name): value for name, value in inner.items()}, content
        )
    return None


def _same_anchors(_content: Any, shapes: AnchorShapes) -> Anchors:
    """Returns anchors of `shapes`, for files that don't describe their anchors."""
    boxes = torch.stack([cell_anchors(stride, shapes) for stride in STRIDES])
    return Anchors(list(product(shapes.ratios, shapes.scales)), boxes, (CENTRE_DEVIATION, SIZE_DEVIATION))


def _usual_anchors(content: Any, _shapes: AnchorShapes) -> Anchors:
    return _same_anchors(content, DEFAULT_SHAPES)


def torchvision_anchors(_content: Any = None, _shapes: AnchorShapes = DEFAULT_SHAPES) -> Anchors:
    """Returns torchvision's anchors: the sides are even integers, and the centres are the cells' top-left corners."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator  # not at the top: it takes 1.5 s to import

    sides = [tuple(int(DEFAULT_SHAPES.side * stride * scale) for scale in DEFAULT_SHAPES.scales) for stride in STRIDES]
    boxes = torch.stack(AnchorGenerator(sides, (DEFAULT_SHAPES.ratios,) * len(STRIDES)).cell_anchors).double()
    corner = torch.tensor(STRIDES, dtype=torch.float64).view(-1, 1, 1) / 2
    return Anchors(list(product(DEFAULT_SHAPES.ratios, DEFAULT_SHAPES.scales)), boxes - corner)


def _odtk_anchors(content: Any, _shapes: AnchorShapes) -> Anchors:
    """Returns the anchors that ODTK's deltas refer to; their ratios and scales are the checkpoint's or the usual ones.

    ODTK counts both edge pixels of a box, so an anchor from a to b is b - a + 1 wide, and its centre is half a pixel
    further right and down. Early versions, which save neither ratios nor scales, round the sides before they scale
    them. Their anchors also end one pixel earlier, which makes up for counting both edge pixels.
    """
    ratios, scales = _odtk_ratios_and_scales(content)
    is_rounded = isinstance(content, dict) and "backbone" in content and "ratios" not in content
    kinds = [(ratio, scale) for scale in scales for ratio in ratios]
    levels = []
    for stride in STRIDES:
        widths = {ratio: (stride**2 / ratio) ** 0.5 for ratio in ratios}
        if is_rounded:
            sides = {ratio: (round(width), round(round(width) * ratio)) for ratio, width in widths.items()}
        else:
            sides = {ratio: (width, width * ratio) for ratio, width in widths.items()}
        half = torch.tensor([sides[ratio] for ratio, _ in kinds], dtype=torch.float64) / 2
        half = half * torch.tensor([scale for _, scale in kinds], dtype=torch.float64)[:, None]  # [anchors per cell, 2]
        levels.append(torch.cat([-half, half + (0 if is_rounded else 1)], dim=1))
    return Anchors(kinds, torch.stack(levels))


def _odtk_ratios_and_scales(content: Any) -> tuple[list[float], list[float]]:
    usual = [1.0, 2.0, 0.5], [DEFAULT_SHAPES.side * scale for scale in DEFAULT_SHAPES.scales]
    saved: list[Any] = [content.get(name) if isinstance(content, dict) else None for name in ("ratios", "scales")]
    ratios, scales = (
        list(map(float, values)) if _are_positive(values) else default
        for values, default in zip(saved, usual, strict=True)
    )
    return ratios, scales


def _are_positive(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and 0 < len(values) <= 30
        and all(isinstance(value, int | float) and 1e-3 <= value <= 1e3 for value in values)
    )


def _torchvision_obstacle(_content: Any, state: Mapping[str, Any]) -> str | None:
    is_fcos = any("bbox_ctrness" in name for name in state)
    return "it is an FCOS detector, with a centre-ness output and without anchors" if is_fcos else None


def _odtk_obstacle(content: Any, state: Mapping[str, Any]) -> str | None:
    backbones = list(dict.fromkeys(match[1] for match in map(re.compile(ODTK_BACKBONE).match, state) if match))
    usable = [f"ResNet{depth}FPN" for depth in DEPTHS]
    if len(backbones) != 1 or backbones[0] not in usable:
        return f"its backbone is {' and '.join(backbones) or 'missing'}, and only {', '.join(usable)} can be loaded"
    ratios, scales = _odtk_ratios_and_scales(content)
    num_anchors, value = len(ratios) * len(scales), state["box_head.8.weight"]
    num_outputs = value.shape[0] if is_tensor(value) and value.ndim else 0
    if (isinstance(content, dict) and "angles" in content) or (
        num_outputs != 4 * num_anchors and num_outputs % (6 * num_anchors) == 0
    ):
        return (
            "it predicts rotated boxes (--rotated-bbox), with two outputs for the angle, and this project predicts "
            "axis-aligned boxes"
        )
    return None


HEADS = ("classification_head", "regression_head")
ODTK_BACKBONE = r"backbones\.(\w+)\."
# https://github.com/yhenon/pytorch-retinanet/blob/master/retinanet/model.py
YHENON = Source(
    title="a RetinaNet from yhenon's pytorch-retinanet or a project derived from it",
    heads=("classificationModel", "regressionModel"),
    names={
        "backbone": ("",),
        "lateral": ("fpn.P{level}_1",),
        "output": ("fpn.P{level}_2",),
        "coarse": ("fpn.P{level}", "fpn.P{level}_2"),
        "convolution": ("{head}.conv{number}",),
        "classification_head": ("{head}.output",),
        "regression_head": ("{head}.output",),
    },
    anchors=_usual_anchors,
)
# https://github.com/NVIDIA/retinanet-examples/tree/main/odtk
ODTK = Source(
    title="a RetinaNet from NVIDIA's ODTK",
    heads=("cls_head", "box_head"),
    names={
        "backbone": ("features.",),
        "lateral": ("lateral{level}",),
        "output": ("smooth{level}",),
        "coarse": ("pyramid{level}",),
        "convolution": ("{head}.{place}",),
        "classification_head": ("{head}.8",),
        "regression_head": ("{head}.8",),
    },
    anchors=_odtk_anchors,
    inner=ODTK_BACKBONE,
    obstacle=_odtk_obstacle,
    note="ODTK counts both edge pixels of a box, so the right and bottom edges that its decoder returns are one pixel "
    "smaller than here; the boxes that it writes to result files are the same as here",
)
# https://github.com/pytorch/vision/blob/main/torchvision/models/detection/retinanet.py
TORCHVISION = Source(
    title="a torchvision RetinaNet",
    heads=HEADS,
    names={
        "backbone": ("backbone.body.",),
        "lateral": ("backbone.fpn.inner_blocks.{row}.0", "backbone.fpn.inner_blocks.{row}"),
        "output": ("backbone.fpn.layer_blocks.{row}.0", "backbone.fpn.layer_blocks.{row}"),
        "coarse": ("backbone.fpn.extra_blocks.p{level}",),
        "convolution": ("head.{head}.conv.{layer}.0", "head.{head}.conv.{place}"),
        "norm": ("head.{head}.conv.{layer}.1",),
        "classification_head": ("head.{head}.cls_logits",),
        "regression_head": ("head.{head}.bbox_reg",),
    },
    anchors=torchvision_anchors,
    num_background=1,
    frozen_eps=0.0,
    obstacle=_torchvision_obstacle,
)
# detector/model.py
OURS = Source(
    title="a RetinaNet of this project, saved without its description",
    heads=HEADS,
    names={
        "backbone": ("backbone.",),
        "lateral": ("pyramid.lateral{level}",),
        "output": ("pyramid.output{level}",),
        "coarse": ("pyramid.output{level}",),
        "convolution": ("{head}.tower.{index}",),
        "norm": ("{head}.tower.{index}",),
        "classification_head": ("{head}.output",),
        "regression_head": ("{head}.output",),
    },
    anchors=_same_anchors,
    note="the file doesn't say which anchors and classes its network was trained with, so this command's are assumed",
)
SOURCES = (TORCHVISION, OURS, YHENON, ODTK)

"""Defines the detector's settings, with the published runs' values as defaults. This file doesn't import PyTorch."""

from dataclasses import dataclass
from typing import NamedTuple

# The number of blocks in layer1 to layer4 of each ResNet. A block has three convolutions at
# depth BOTTLENECKS and above, otherwise two.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTHS = tuple(BLOCKS)
BOTTLENECKS = 50
# The stages of the ResNet, input first, and the names of their modules in torchvision.
STAGES = {"stem": ("conv1", "bn1"), **{name: (name,) for name in ("layer1", "layer2", "layer3", "layer4")}}
CHANNELS = 256  # width of the pyramid and the heads
PRIOR = 0.01  # score of every anchor and class before training
HEAD_NORMS = ("none", "group")
NORM_GROUPS = 32
CLASS_LOSSES = ("focal", "quality")
BOX_LOSSES = ("smooth_l1", "giou")
MATCHERS = ("iou", "low_quality", "atss")
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.4


class AnchorShapes(NamedTuple):
    """The shapes of a cell's anchors, relative to the level's stride; the defaults are the RetinaNet paper's."""

    side: float = 4.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    scales: tuple[float, ...] = (2 ** (0 / 3), 2 ** (1 / 3), 2 ** (2 / 3))

    @property
    def per_cell(self) -> int:
        return len(self.ratios) * len(self.scales)


class Architecture(NamedTuple):
    """All that is needed to rebuild the network, apart from the number of classes."""

    depth: int = 50  # one of DEPTHS
    channels: int = CHANNELS
    head_norm: str = "none"  # one of HEAD_NORMS; "group" needs a multiple of NORM_GROUPS channels
    anchors: AnchorShapes = AnchorShapes()
    iou_branch: bool = False  # the regression head also predicts each box's IoU (https://arxiv.org/abs/1912.05992)
    level_code: bool = False  # a fixed linear map of each level's deltas, for weights trained on other anchors
    p6_from_p5: bool = False  # P6 is computed from P5 instead of C5, as in FCOS and torchvision's first RetinaNet

    def impossible(self) -> list[str]:
        """Returns the names of the fields whose values no network can have; all values must have the right type."""
        possible = {
            "depth": self.depth in DEPTHS,
            "channels": self.channels > 0,
            "head_norm": self.head_norm == "none" or (self.head_norm == "group" and self.channels % NORM_GROUPS == 0),
            "iou_branch": not (self.iou_branch and self.level_code),
        }
        return [name for name, is_possible in possible.items() if not is_possible]


@dataclass(frozen=True)
class LossSettings:
    """The settings of the loss, including how anchors are matched with objects."""

    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 1 / 9
    foreground_iou: float = FOREGROUND_IOU
    background_iou: float = BACKGROUND_IOU
    matcher: str = "iou"  # one of MATCHERS
    class_loss: str = "focal"  # one of CLASS_LOSSES
    box_loss: str = "smooth_l1"  # one of BOX_LOSSES
    ignore_crowds: bool = False


@dataclass(frozen=True)
class DetectionSettings:
    """The settings of `detect`, which turns the network's output into detections."""

    threshold: float = 0.05
    num_candidates: int = 1000
    nms_iou: float = 0.5
    max_detections: int = 100


DEFAULT_LOSS = LossSettings()
DEFAULT_DETECTION = DetectionSettings()

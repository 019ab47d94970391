"""What a network can start from. Needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass

from retinanet.detector.settings import CHANNELS, PRIOR, AnchorShapes

DEPTHS_OF_V2 = (50, 101, 152)  # that torchvision has its newer ImageNet weights for
# torchvision's detector that learned COCO, retinanet_resnet50_fpn_v2.
DETECTOR_DEPTH, DETECTOR_CHANNELS, DETECTOR_HEAD_NORM = 50, 256, "group"
NORM_STATISTICS = ("auto", "frozen", "learned")


@dataclass(frozen=True)
class StartSettings:
    """The network, and the weights that it starts from."""

    depth: int = 50
    channels: int = CHANNELS
    weights: str = "imagenet"  # or imagenet_v2, coco, none, a file
    freeze_stages: int = 0
    head_norm: str = "none"
    norm_statistics: str = "frozen"  # of NORM_STATISTICS
    prior: float = PRIOR
    iou_branch: bool = False
    anchor_scale: float = AnchorShapes().side
    anchor_ratios: tuple[float, ...] = AnchorShapes().ratios
    anchor_octaves: int = len(AnchorShapes().scales)

    @property
    def anchor_shapes(self) -> AnchorShapes:
        return shapes_of(self.anchor_scale, self.anchor_ratios, self.anchor_octaves)


def default_statistics(weights: str, of_file: str = "frozen") -> str:
    """What becomes of the batch norms' statistics in a network that starts from `weights`."""
    return "learned" if weights == "none" else of_file


def shapes_of(scale: float, ratios: Sequence[float], num_octaves: int) -> AnchorShapes:
    """The anchors of `num_octaves` sizes from `scale` strides to just below its double, each in all `ratios`."""
    return AnchorShapes(scale, tuple(ratios), tuple(2 ** (number / num_octaves) for number in range(num_octaves)))

"""What a network can start from. Needs no PyTorch."""

from dataclasses import dataclass

from retinanet.detector.settings import CHANNELS, PRIOR

DEPTHS_OF_V2 = (50, 101, 152)  # that torchvision has its newer ImageNet weights for
# torchvision's detector that learned COCO, retinanet_resnet50_fpn_v2.
DETECTOR_DEPTH, DETECTOR_CHANNELS, DETECTOR_HEAD_NORM = 50, 256, "group"


@dataclass(frozen=True)
class StartSettings:
    """The network, and the weights that it starts from."""

    depth: int = 50
    channels: int = CHANNELS
    weights: str = "imagenet"  # or imagenet_v2, coco, none, a file
    freeze_stages: int = 0
    head_norm: str = "none"
    prior: float = PRIOR

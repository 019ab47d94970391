"""Provides a ResNet-18 with a quarter of the channels, for tests of other parts: training and saving cost 1/16."""

from unittest.mock import patch

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from retinanet.detector import backbone, model

WIDTH = 16  # of the first stage; torchvision's has 64


class NarrowResNet(ResNet):
    """A resnet18 as in torchvision, which has no width argument, but with fewer channels."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, WIDTH, 1, 1, 64
        self.conv1 = nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(BasicBlock, WIDTH, 2)
        self.layer2, self.layer3, self.layer4 = (
            self._make_layer(BasicBlock, WIDTH * growth, 2, stride=2) for growth in (2, 4, 8)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class NarrowBackbone(backbone.Backbone):
    """Replaces the backbone of depth 18; backbones of other depths are unchanged."""

    def __init__(self, depth: int, learn_statistics: bool = False) -> None:
        if depth != 18:
            super().__init__(depth, learn_statistics)
            return
        with patch.object(backbone, "get_model", lambda name, weights: NarrowResNet()):
            super().__init__(depth, learn_statistics)
        self.out_channels = (2 * WIDTH, 4 * WIDTH, 8 * WIDTH)


narrowed = patch.object(model, "Backbone", NarrowBackbone)  # has start() and stop(), or is used as a context

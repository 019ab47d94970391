"""Provides twins of published RetinaNets, to compare with the networks that are loaded from the twins' weights.

The twins are written from the descriptions of the published networks, and their tensors have the published names.
`outputs(images)` returns the scores [A, C] and the boxes [A, 4] of one uint8 image [1, 3, H, W] in the order of the
twin's anchors, before any threshold. `kinds` are the (ratio, size) of the anchors of a cell, in the twin's order.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet, get_model
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead, _default_anchorgen
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

KINDS = [(ratio, 2 ** (number / 3)) for ratio in (0.5, 1.0, 2.0) for number in range(3)]
OUTPUT_SPREADS = 0.005, 0.0005  # of the classification and the regression
MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Draws all weights anew, so that scores differ from cell to cell and boxes overlap their anchors."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draw)
        elif value.is_floating_point() and value.ndim == 1:
            value.copy_(0.1 * torch.randn(value.shape, generator=draw) + (1 if name.endswith(".weight") else 0))
        elif value.ndim == 4:
            spread = dict(zip(network.output_names, OUTPUT_SPREADS, strict=True)).get(name.removesuffix(".weight"))
            spread = spread or (2 / value[0].numel()) ** 0.5
            value.copy_(spread * torch.randn(value.shape, generator=draw))
    return network.eval().double()


def normalised(images: Tensor) -> Tensor:
    """Returns `images` as torchvision, yhenon and ODTK normalise them: in 0..1, with ImageNet's mean and deviation."""
    return (images.double() / 255 - MEAN.double()) / DEVIATION.double()


def resnet_levels(resnet: nn.Module, images: Tensor) -> list[Tensor]:
    """Returns C3, C4 and C5."""
    features = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    levels = []
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        features = layer(features)
        levels.append(features)
    return levels[1:]


def cells_first(output: Tensor, num_anchors: int) -> Tensor:
    """Turns [1, anchors * values, h, w] into [h * w * anchors, values], ordered by row, column and anchor."""
    return output[0].unflatten(0, (num_anchors, -1)).permute(2, 3, 0, 1).flatten(0, 2)


class Subnet(nn.Module):
    """yhenon's RegressionModel or ClassificationModel, without the sigmoid."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        for number in (1, 2, 3, 4):
            setattr(self, f"conv{number}", nn.Conv2d(channels, channels, 3, padding=1))
        self.output = nn.Conv2d(channels, num_outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        for number in (1, 2, 3, 4):
            features = F.relu(getattr(self, f"conv{number}")(features))
        return self.output(features)


class YhenonPyramid(nn.Module):
    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        for level, width in zip((3, 4, 5), widths, strict=True):
            setattr(self, f"P{level}_1", nn.Conv2d(width, channels, 1))
            setattr(self, f"P{level}_2", nn.Conv2d(channels, channels, 3, padding=1))
        self.P6 = nn.Conv2d(widths[2], channels, 3, stride=2, padding=1)
        self.P7_2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        merged5 = self.P5_1(c5)
        merged4 = self.P4_1(c4) + F.interpolate(merged5, scale_factor=2)
        merged3 = self.P3_1(c3) + F.interpolate(merged4, scale_factor=2)
        p6 = self.P6(c5)
        return [self.P3_2(merged3), self.P4_2(merged4), self.P5_2(merged5), p6, self.P7_2(F.relu(p6))]


class Yhenon(ResNet):
    """https://github.com/yhenon/pytorch-retinanet: retinanet/model.py, anchors.py and utils.py (BBoxTransform)."""

    kinds = KINDS
    output_names = ("classificationModel.output", "regressionModel.output")

    def __init__(self, depth: int = 18, num_classes: int = 80, channels: int = 16) -> None:
        resnet = get_model(f"resnet{depth}", weights=None)
        blocks = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        super().__init__(type(resnet.layer1[0]), [len(layer) for layer in blocks])
        del self.fc
        last = resnet.fc.in_features
        self.fpn = YhenonPyramid([last // 4, last // 2, last], channels)
        self.regressionModel = Subnet(channels, 9 * 4)
        self.classificationModel = Subnet(channels, 9 * num_classes)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.fpn(*resnet_levels(self, normalised(images)))
        scores = torch.cat([cells_first(self.classificationModel(level), 9).sigmoid() for level in levels])
        deltas = torch.cat([cells_first(self.regressionModel(level), 9) for level in levels])
        anchors = self.anchors(*images.shape[2:])
        sizes = anchors[:, 2:] - anchors[:, :2]
        centres = anchors[:, :2] + sizes / 2 + deltas[:, :2] * 0.1 * sizes
        sizes = sizes * (deltas[:, 2:] * 0.2).exp()
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
        height, width = images.shape[2:]
        return scores, torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))

    def anchors(self, height: int, width: int) -> Tensor:
        boxes = []
        for level in (3, 4, 5, 6, 7):
            stride = 2**level
            for row in range(-(-height // stride)):
                for column in range(-(-width // stride)):
                    for ratio, scale in self.kinds:
                        area = (4 * stride * scale) ** 2
                        w = (area / ratio) ** 0.5
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        boxes.append([x - w / 2, y - w * ratio / 2, x + w / 2, y + w * ratio / 2])
        return torch.tensor(boxes, dtype=torch.float64)


class OdtkPyramid(nn.Module):
    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.features = get_model(f"resnet{depth}", weights=None)
        last = self.features.fc.in_features
        for level, width in zip((3, 4, 5), (last // 4, last // 2, last), strict=True):
            setattr(self, f"lateral{level}", nn.Conv2d(width, channels, 1))
            setattr(self, f"smooth{level}", nn.Conv2d(channels, channels, 3, padding=1))
        self.pyramid6 = nn.Conv2d(last, channels, 3, stride=2, padding=1)
        self.pyramid7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        c3, c4, c5 = resnet_levels(self.features, images)
        p5 = self.lateral5(c5)
        p4 = self.lateral4(c4) + F.interpolate(p5, scale_factor=2)
        p3 = self.lateral3(c3) + F.interpolate(p4, scale_factor=2)
        p6 = self.pyramid6(c5)
        return [self.smooth3(p3), self.smooth4(p4), self.smooth5(p5), p6, self.pyramid7(F.relu(p6))]


class Odtk(nn.Module):
    """https://github.com/NVIDIA/retinanet-examples: odtk/model.py, box.py and backbones/fpn.py.

    `rounded` makes the anchors of its first commit, whose files don't have the ratios and scales.
    """

    output_names = ("cls_head.8", "box_head.8")

    def __init__(
        self, depth: int = 18, num_classes: int = 80, channels: int = 16, *, rounded: bool = False, num_outputs: int = 4
    ) -> None:
        super().__init__()
        self.rounded, self.num_classes, self.name = rounded, num_classes, f"ResNet{depth}FPN"
        self.ratios, self.scales = [1.0, 2.0, 0.5], [4 * 2 ** (number / 3) for number in range(3)]
        self.kinds = [(ratio, scale) for scale in self.scales for ratio in self.ratios]
        self.backbones = nn.ModuleDict({self.name: OdtkPyramid(depth, channels)})

        def head(num_outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for _ in range(4):
                layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv2d(channels, num_outputs, 3, padding=1))

        self.cls_head, self.box_head = head(9 * num_classes), head(9 * num_outputs)

    def checkpoint(self) -> dict:
        """Returns a checkpoint as ODTK saves it; its first commit (`rounded`) didn't save the ratios and scales."""
        content = {"backbone": [self.name], "classes": self.num_classes, "state_dict": self.state_dict()}
        more = {} if self.rounded else {"ratios": self.ratios, "scales": self.scales}
        return {**content, **more, "iteration": 90000, "optimizer": {"state": {0: {"momentum": torch.zeros(3)}}}}

    @torch.no_grad()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores, and the boxes of its decoder, whose x2 and y2 are the last pixels inside."""
        levels = self.backbones[self.name](normalised(images))
        scores = torch.cat([cells_first(self.cls_head(level).sigmoid(), 9) for level in levels])
        boxes = []
        for level in levels:
            deltas, stride = cells_first(self.box_head(level), 9), images.shape[3] // level.shape[3]
            sizes = [
                (round((stride**2 / ratio) ** 0.5) if self.rounded else (stride**2 / ratio) ** 0.5, ratio)
                for ratio, _ in self.kinds
            ]
            sizes = torch.tensor([(w, round(w * ratio) if self.rounded else w * ratio) for w, ratio in sizes]).double()
            sizes = sizes * torch.tensor([[scale] for _, scale in self.kinds]).double()
            upper, lower = (stride - sizes) / 2, (stride + sizes) / 2 - (1 if self.rounded else 0)
            y, x = torch.meshgrid(torch.arange(level.shape[2]), torch.arange(level.shape[3]), indexing="ij")
            place = torch.stack([x, y], dim=-1)[:, :, None] * stride  # [h, w, 1, 2]
            upper, lower = (place + upper).view(-1, 2), (place + lower).view(-1, 2)
            anchor_sizes = lower - upper + 1
            centres = upper + 0.5 * anchor_sizes + deltas[:, :2] * anchor_sizes
            box_sizes = deltas[:, 2:].exp() * anchor_sizes
            boxes.append(torch.cat([centres - 0.5 * box_sizes, centres + 0.5 * box_sizes - 1], dim=1))
        height, width = images.shape[2:]
        limit = torch.tensor([width, height, width, height]) - 1
        return scores, torch.minimum(torch.cat(boxes).clamp(min=0), limit)


class Torchvision(RetinaNet):
    """torchvision's own RetinaNet: version 1 is built as retinanet_resnet50_fpn, 2 as retinanet_resnet50_fpn_v2.

    With `frozen`, version 1 has the batch norms of the published COCO weights, whose epsilon is 0.
    """

    kinds = KINDS
    output_names = ("head.classification_head.cls_logits", "head.regression_head.bbox_reg")

    def __init__(self, version: int, depth: int = 18, num_rows: int = 91, *, frozen: bool = False) -> None:
        norm = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        resnet = get_model(f"resnet{depth}", weights=None, norm_layer=norm)
        width = resnet.fc.in_features if version == 2 else 256
        body = _resnet_fpn_extractor(resnet, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(width, 256))
        head_norm = (lambda channels: nn.GroupNorm(32, channels)) if version == 2 else None
        head = RetinaNetHead(256, 9, num_rows, norm_layer=head_norm)
        super().__init__(body, num_rows, anchor_generator=_default_anchorgen(), head=head)
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0

    @torch.no_grad()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = list(self.backbone(normalised(images)).values())
        found = self.head(levels)
        anchors = self.anchor_generator(ImageList(images.double(), [tuple(images.shape[2:])]), levels)[0]
        boxes = self.box_coder.decode_single(found["bbox_regression"][0], anchors)
        height, width = images.shape[2:]
        return found["cls_logits"][0].sigmoid(), torch.minimum(
            boxes.clamp(min=0), torch.tensor([width, height, width, height])
        )

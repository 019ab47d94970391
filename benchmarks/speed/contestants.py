"""Builds our RetinaNet and torchvision's for training or detection, with the same depth, image size and classes.

Both train all layers with fixed batch-norm statistics (ours also trains the scale and shift), on the same images and
boxes, in the same precision, with the same gradient clipping and fused Adam. torchvision's own resizing is turned off.
For detection, the biases are raised until 1,000 candidates per image pass the threshold.
"""

import argparse
import math
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.arguments import device_of
from retinanet.data.batches import Batch, Sample, collate
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import find_candidates, suppress
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, Architecture
from retinanet.detector.structures import Targets
from retinanet.detector.windows import SparseNetwork
from retinanet.runtime.device import PRECISIONS, autocast, choose_precision
from retinanet.settings.options import whole_number, with_values
from retinanet.settings.train import PUBLISHED, RECIPES, TrainSettings
from retinanet.training.compilation import Compiled
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage

Work = Callable[[], object]
OBJECTS = 5  # in each image


def add_contest_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--height", type=whole_number(32), default=320)
    parser.add_argument("--width", type=whole_number(32), default=448)
    parser.add_argument("--batch_size", type=whole_number(1), default=2)
    parser.add_argument("--num_classes", type=whole_number(1), default=80)
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--precision", choices=("auto", *PRECISIONS), default="auto")
    parser.add_argument("--warm_up", type=whole_number(1), default=2)
    parser.add_argument("--repeats", type=whole_number(1), default=9)
    parser.add_argument("--profile", action="store_true", help="also list the operators of ours with their time")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)


def case_of(args: argparse.Namespace) -> str:
    size = f"{args.height} x {args.width}, batch {args.batch_size}, {args.num_classes} classes"
    return f"ResNet-{args.depth}, {size}, {str(precision_of(args)).removeprefix('torch.')}"


def precision_of(args: argparse.Namespace) -> torch.dtype:
    torch.backends.cudnn.benchmark = True  # pays off with images of one shape; on for all contestants
    return choose_precision(args.precision, args.device)


def random_batch(args: argparse.Namespace, seed: int = 0) -> Batch:
    """Returns a random batch on the device."""
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for row in range(args.batch_size):
        image = torch.randint(0, 256, (3, args.height, args.width), dtype=torch.uint8, generator=draw)
        corner = torch.rand(OBJECTS, 2, generator=draw) * torch.tensor([args.width, args.height]) * 0.6
        size = 24 + torch.rand(OBJECTS, 2, generator=draw) * torch.tensor([args.width, args.height]) * 0.35
        labels = torch.randint(0, args.num_classes, (OBJECTS,), generator=draw)
        samples.append(Sample(image, torch.cat([corner, corner + size], dim=1), labels, torch.ones(2), row))
    batch = collate(samples)
    targets = Targets(*(tensor.to(args.device) for tensor in batch.targets))
    return batch._replace(images=batch.images.to(args.device), sizes=batch.sizes.to(args.device), targets=targets)


def our_step(args: argparse.Namespace, compiled: bool = False, recipe: str = PUBLISHED) -> Work:
    """Returns a training step like train.py's, with the recipe's network, losses and weight average."""
    settings = with_values(TrainSettings(), RECIPES[recipe])
    batch = random_batch(args)
    model = (
        RetinaNet(Architecture(args.depth, iou_branch=settings.network.iou_branch), args.num_classes)
        .to(args.device)
        .train()
    )
    average = WeightAverage(model, 0.999) if settings.optimisation.ema_share else None
    state = TrainingState(model, build_optimizer(model, "adam", 1e-5, 0.0), args.device, average=average)
    losses = losses_of(
        model,
        args.num_classes,
        args.device,
        precision=precision_of(args),
        compiled=Compiled(args.batch_size) if compiled else None,
        loss_settings=settings.loss,
    )
    step = _step(state.optimizer, state.parameters, lambda: list(losses(batch.images, batch.targets)))
    if average is None:
        return step

    def averaged_step() -> None:
        step()
        average.update()

    return averaged_step


def torchvision_step(args: argparse.Namespace) -> Work:
    batch = random_batch(args)
    model = torchvision_model(args.depth, args.num_classes).to(args.device).train()
    images = _float_images(batch)
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(*batch.targets, strict=True)]

    def losses() -> list[Tensor]:
        with autocast(args.device, precision_of(args)):
            return list(model(images, targets).values())

    return _step(build_optimizer(model, "adam", 1e-5, 0.0), list(model.parameters()), losses)


def _step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], losses: Callable[[], list[Tensor]]) -> Work:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses()).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()

    return step


def our_detection(args: argparse.Namespace) -> Work:
    batch = random_batch(args)
    model = RetinaNet(Architecture(args.depth), args.num_classes).to(args.device).eval()
    _raise_bias(model.classification_head.output, lambda: model(batch.images).logits)
    network = SparseNetwork(model, DEFAULT_DETECTION.threshold) if args.device.type == "cpu" else model

    @torch.no_grad()
    def detection() -> object:
        with autocast(args.device, precision_of(args)):
            predictions = network(batch.images)
        anchors = anchors_for(args.height, args.width, args.device)
        candidates = find_candidates(predictions, anchors, batch.sizes, DEFAULT_DETECTION.num_candidates)
        return suppress(candidates, batch.sizes)

    return detection


def torchvision_detection(args: argparse.Namespace) -> Work:
    images = _float_images(random_batch(args))
    model = torchvision_model(args.depth, args.num_classes).to(args.device).eval()

    def logits() -> Tensor:
        features = list(model.backbone(model.transform(images)[0].tensors).values())
        return model.head(features)["cls_logits"]

    _raise_bias(model.head.classification_head.cls_logits, logits)

    @torch.no_grad()
    def detection() -> object:
        with autocast(args.device, precision_of(args)):
            return model(images)

    return detection


def torchvision_model(depth: int, num_classes: int, channels: int = 256) -> TorchvisionRetinaNet:
    """Returns torchvision's RetinaNet without resizing; `channels` is the width of its pyramid and heads."""
    extra_blocks = LastLevelP6P7(channels, channels)
    body = torchvision.models.get_model(f"resnet{depth}", norm_layer=FrozenBatchNorm2d)
    backbone = BackboneWithFPN(
        body,
        return_layers={"layer2": "0", "layer3": "1", "layer4": "2"},
        in_channels_list=[body.inplanes // 4, body.inplanes // 2, body.inplanes],
        out_channels=channels,
        extra_blocks=extra_blocks,
    )
    model = TorchvisionRetinaNet(backbone, num_classes)
    # torchvision's _skip_resize only affects training: in detection, the shorter side would still become 800 pixels.
    model.transform.resize = lambda image, target=None: (image, target)
    return model


def _float_images(batch: Batch) -> list[Tensor]:
    return list((batch.images.float() / 255).contiguous())


def _raise_bias(output: nn.Conv2d, logits: Callable[[], Tensor]) -> None:
    """Spreads the logits a little, and raises them until NMS gets as many candidates as it accepts."""
    assert output.bias is not None
    with torch.no_grad():
        nn.init.trunc_normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)
        last = logits().flatten(1).topk(DEFAULT_DETECTION.num_candidates, dim=1).values[:, -1].mean().item()
        threshold = DEFAULT_DETECTION.threshold
        nn.init.constant_(output.bias, math.log(threshold / (1 - threshold)) - last)

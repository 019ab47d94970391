"""A training step and a detection, ours beside torchvision's RetinaNet of equal depth, size, batch and classes.

    python benchmarks/step.py --depth 18 --height 320 --width 448 --batch_size 2

Both train all layers with fixed batch-norm statistics (ours learns their scale and shift too), on the same images and
boxes, with the same gradient clipping and fused Adam. Detection has the biases raised until 1,000 candidates of an
image pass the threshold. Peak memory is measured in a process of its own for each.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.protocol import describe, peak_of_this_process, time_in_turn
from retinanet.anchors import anchors_for
from retinanet.command_line import device_of, whole_number
from retinanet.data import collate
from retinanet.detect import NUM_CANDIDATES, THRESHOLD, detect
from retinanet.engine import build_optimizer
from retinanet.loss import detection_loss
from retinanet.model import RetinaNet
from retinanet.structures import Batch, Sample

Work = Callable[[], object]
OBJECTS = 5  # in each image


def random_batch(args: argparse.Namespace) -> Batch:
    draw = torch.Generator().manual_seed(0)
    samples = []
    for image_id in range(args.batch_size):
        image = torch.randint(0, 256, (3, args.height, args.width), dtype=torch.uint8, generator=draw)
        corner = torch.rand(OBJECTS, 2, generator=draw) * torch.tensor([args.width, args.height]) * 0.6
        size = 24 + torch.rand(OBJECTS, 2, generator=draw) * torch.tensor([args.width, args.height]) * 0.35
        labels = torch.randint(0, args.num_classes, (OBJECTS,), generator=draw)
        samples.append(Sample(image, torch.cat([corner, corner + size], dim=1), labels, torch.ones(2), image_id))
    return collate(samples)


def training_step(model: nn.Module, losses: Callable[[], Tensor]) -> Work:
    optimizer = build_optimizer(model, "adam", 1e-5, 0.0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    return step


def raise_bias(output: nn.Conv2d, logits: Callable[[], Tensor]) -> None:
    """Spread the logits a little and lift them until NUM_CANDIDATES of an image pass the threshold."""
    assert output.bias is not None
    with torch.no_grad():
        nn.init.normal_(output.weight, std=0.01, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(output.bias)
        last = logits().flatten(1).topk(NUM_CANDIDATES, dim=1).values[:, -1].mean().item()
        nn.init.constant_(output.bias, math.log(THRESHOLD / (1 - THRESHOLD)) - last)


def ours(args: argparse.Namespace, batch: Batch) -> dict[str, Work]:
    model = RetinaNet(args.num_classes, args.depth).to(args.device).train()
    images, targets, sizes = batch.images.to(args.device), batch.targets, batch.sizes.to(args.device)
    targets = type(targets)(*(tensor.to(args.device) for tensor in targets))

    def losses() -> Tensor:
        anchors = anchors_for(args.height, args.width, args.device)
        return sum(detection_loss(model(images), anchors, targets), torch.zeros((), device=args.device))

    def detection() -> object:
        with torch.no_grad():
            return detect(model.eval()(images), anchors_for(args.height, args.width, args.device), sizes)

    def ready() -> Work:
        raise_bias(model.classification_head.output, lambda: model.eval()(images).logits)
        return detection

    return {"train": training_step(model.train(), losses)} if args.what == "train" else {"detect": ready()}


def torchvisions(args: argparse.Namespace, batch: Batch) -> dict[str, Work]:
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{args.depth}",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
        trainable_layers=5,
    )
    # The images have their size already; its own resizing is left out of the comparison.
    model = TorchvisionRetinaNet(backbone, args.num_classes, _skip_resize=True).to(args.device)
    images = list((batch.images.to(args.device).float() / 255).contiguous())
    targets = [
        {"boxes": boxes.to(args.device), "labels": labels.to(args.device)}
        for boxes, labels in zip(*batch.targets, strict=True)
    ]

    def losses() -> Tensor:
        return sum(model(images, targets).values(), torch.zeros((), device=args.device))

    def logits() -> Tensor:
        features = list(model.backbone(model.transform(images)[0].tensors).values())
        return model.head(features)["cls_logits"]

    def detection() -> object:
        with torch.no_grad():
            return model(images)

    if args.what == "train":
        return {"train": training_step(model.train(), losses)}
    raise_bias(model.eval().head.classification_head.cls_logits, logits)
    return {"detect": detection}


CONTESTANTS = {"ours": ours, "torchvision": torchvisions}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--height", type=whole_number(32), default=320)
    parser.add_argument("--width", type=whole_number(32), default=448)
    parser.add_argument("--batch_size", type=whole_number(1), default=2)
    parser.add_argument("--num_classes", type=whole_number(1), default=80)
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--warm_up", type=whole_number(1), default=2)
    parser.add_argument("--repeats", type=whole_number(1), default=9)
    parser.add_argument("--what", choices=("train", "detect"), help=argparse.SUPPRESS)
    parser.add_argument("--memory_of", choices=tuple(CONTESTANTS), help=argparse.SUPPRESS)
    return parser


def peak_memory(args: argparse.Namespace, name: str, what: str, argv: list[str]) -> float:
    """GB at the peak of a few calls, in a process of its own."""
    command = [sys.executable, __file__, *argv, "--what", what, "--memory_of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_memory(args: argparse.Namespace) -> None:
    (work,) = CONTESTANTS[args.memory_of](args, random_batch(args)).values()
    for _ in range(3):
        work()
    if args.device.type == "cuda":
        print(torch.cuda.max_memory_allocated(args.device) / 1e9)
    else:
        print(peak_of_this_process() / 1e9)


def main() -> None:
    argv = sys.argv[1:]
    args = build_parser().parse_args(argv)
    if args.memory_of:
        print_memory(args)
        return
    batch = random_batch(args)
    print(f"ResNet-{args.depth}, {args.height} x {args.width}, batch {args.batch_size}, {args.num_classes} classes\n")
    print("| what | ours, images/s | torchvision, images/s | ratio | ours, GB | torchvision, GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for what in ("train", "detect"):
        args.what = what
        works = {name: build(args, batch)[what] for name, build in CONTESTANTS.items()}
        timings = time_in_turn(works, args.device, args.warm_up, args.repeats)
        ratio = timings["torchvision"].median / timings["ours"].median
        rates = " | ".join(timings[name].rate(args.batch_size) for name in CONTESTANTS)
        memory = " | ".join(f"{peak_memory(args, name, what, argv):.2f}" for name in CONTESTANTS)
        print(f"| {what} | {rates} | {ratio:.2f} | {memory} |", flush=True)
    print(f"\nMedian of {args.repeats} (slowest to fastest). {describe(args.device)}")


if __name__ == "__main__":
    main()

"""Trains torchvision's RetinaNet (the peer in accuracy.md) in the same way as train.py, and writes a result file.

    python -m benchmarks.accuracy.peer --coco_path $VOC5 --weights $R18 --depth 18 --output_path peer.json

Initialisation, anchors, matching, losses and post-processing are torchvision's; batch norm keeps the statistics, scale
and shift of the weights file. Images, image sizes, flips, batches, optimiser, learning rates and clipping are
train.py's, with its defaults. As in train.py, only the network runs in lower precision; torchvision by itself would
also compute its anchors in lower precision.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet

from benchmarks.arguments import device_of
from benchmarks.speed.contestants import torchvision_model
from retinanet.checkpoints.pretrained_backbone import load_backbone
from retinanet.checkpoints.state_dicts import read_state_file
from retinanet.coco.results import Found, rows_of, write_results
from retinanet.data.batches import Batch
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.device_feed import BadImages, on_device
from retinanet.detector.backbone import Backbone
from retinanet.detector.settings import DEPTHS
from retinanet.detector.structures import Detections
from retinanet.evaluation.coco_table import evaluate
from retinanet.evaluation.detect_images import found_in_batch
from retinanet.evaluation.detect_set import batches_of_set, found_in_set
from retinanet.runtime.console import run, say
from retinanet.runtime.device import autocast, choose_precision, num_workers
from retinanet.runtime.errors import Diverged
from retinanet.runtime.files import require_writable
from retinanet.settings.options import HelpFormatter, number_above, whole_number
from retinanet.settings.shared import MAX_PIXELS, installed_backends
from retinanet.settings.train import Data, Network, Optimisation
from retinanet.training.optimizer import build_optimizer, set_rate
from retinanet.training.schedule import Schedule

LOG_EVERY = 100


def build_parser() -> argparse.ArgumentParser:
    data, network, optimisation = Data(), Network(), Optimisation()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=data.coco_path)
    parser.add_argument("--weights", type=Path, required=True, help="a FILE with a state dict, which may be partial")
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=network.depth)
    parser.add_argument("--channels", type=whole_number(1), default=256, help="channels of the pyramid and the heads")
    parser.add_argument("--min_side", type=whole_number(64), default=data.min_side)
    parser.add_argument("--max_side", type=whole_number(64), default=data.max_side)
    parser.add_argument("--batch_size", type=whole_number(1), default=data.batch_size)
    parser.add_argument("--epochs", type=whole_number(1), default=optimisation.epochs)
    parser.add_argument("--milestones", type=whole_number(0), nargs="*", default=optimisation.milestones)
    parser.add_argument("--learning_rate", type=number_above(0), default=optimisation.learning_rate)
    parser.add_argument("--optimizer", choices=("adam", "adamw", "sgd"), default=optimisation.optimizer)
    parser.add_argument("--seed", type=whole_number(0), default=optimisation.seed)
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--workers", type=whole_number(0), help="default: 1 on a CPU, else up to 8")
    parser.add_argument("--output_path", type=Path, default=Path("peer.json"), help="the result file to write")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is below --min_side {args.min_side}")
    require_writable(args.output_path)
    args.workers = num_workers(args.workers, args.device)
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": MAX_PIXELS}
    _, training_set = load_set(args.coco_path, "train", **sides)
    annotations, val_set = load_set(args.coco_path, "val", **sides)
    model = build_model(args, len(annotations.class_names))
    train(model, training_set, args)
    found = detect_all(model, val_set, args)
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    write_results(rows_of(found, annotations), args.output_path)
    say(f"{len(found.scores)} detections written to {args.output_path}")
    say(*evaluate(annotations, found, installed_backends()[0]).text.splitlines())
    return 0


def build_model(args: argparse.Namespace, num_classes: int) -> TorchvisionRetinaNet:
    """Returns torchvision's model with the backbone weights from --weights.

    The network runs in the precision that `--precision auto` chooses in train.py, the rest in float32. Labels are
    0..C-1, as in this project: torchvision's documentation says that num_classes includes the background, but its loss
    treats every column as a class, and its detection returns them all.
    """
    torch.manual_seed(args.seed)
    model = torchvision_model(args.depth, num_classes, args.channels)
    body = cast(Backbone, model.backbone.body)  # its layers have the same names
    body.depth = args.depth
    report = load_backbone(body, read_state_file(args.weights), str(args.weights))
    loaded = f"{report.num_loaded} of {report.num_tensors} tensors loaded from {args.weights}"
    precision = choose_precision("auto", args.device)
    torch.backends.cudnn.benchmark = True  # as in train.py
    say(f"Backbone weights: {loaded}; random: {', '.join(report.missing) or 'none'}")
    say(f"Precision: {str(precision).removeprefix('torch.')}")
    for module in (model.backbone, model.head):
        module.forward = _in_precision(module.forward, args.device, precision)
    return model.to(args.device)


def _in_precision(
    forward: Callable[[Any], dict[str, Tensor]], device: torch.device, precision: torch.dtype
) -> Callable[[Any], dict[str, Tensor]]:
    def forward_in_precision(features: Any) -> dict[str, Tensor]:
        with autocast(device, precision):
            outputs = forward(features)
        return {name: output.float() for name, output in outputs.items()}

    return forward_in_precision


def loading_of(args: argparse.Namespace) -> LoaderSettings:
    return LoaderSettings(args.batch_size, args.workers, args.device)


def train(model: TorchvisionRetinaNet, dataset: CocoDataset, args: argparse.Namespace) -> None:
    """Trains the model. Raises Diverged at the first loss that is not finite."""
    ours = Optimisation()
    optimizer = build_optimizer(model, args.optimizer, args.learning_rate, ours.weight_decay)
    loader, sampler = training_loader(dataset, loading_of(args), seed=args.seed)
    schedule = Schedule(args.learning_rate, sampler.first_steps(args.epochs), milestones=args.milestones)
    model.train()
    for epoch in range(args.epochs):
        losses: list[float] = []
        started = time.perf_counter()
        sampler.start_at(epoch)
        for batch in on_device(BadImages(len(dataset), skip=False).passing(loader), args.device):
            rate = schedule.rate(epoch * len(sampler) + len(losses))
            losses.append(_step(model, optimizer, batch, rate, ours.clip_norm))
            if not math.isfinite(losses[-1]):
                raise Diverged(f"Epoch {epoch}, iteration {len(losses)}: the loss is {losses[-1]}")
            if len(losses) in (1, len(sampler)) or len(losses) % LOG_EVERY == 0:
                say(f"Epoch: {epoch} | Iteration: {len(losses)} | Loss: {losses[-1]:.5f} | Learning rate: {rate:g}")
        taken = timedelta(seconds=round(time.perf_counter() - started))
        say(f"Epoch {epoch} took {taken}, mean loss {sum(losses) / len(losses):.5f}")


def _step(
    model: TorchvisionRetinaNet, optimizer: torch.optim.Optimizer, batch: Batch, rate: float, clip_norm: float
) -> float:
    set_rate(optimizer, rate)
    optimizer.zero_grad(set_to_none=True)
    targets = [
        {"boxes": boxes[labels >= 0], "labels": labels[labels >= 0]}
        for boxes, labels in zip(*batch.targets, strict=True)
    ]
    loss = torch.stack(list(model(_images(batch), targets).values())).sum()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


def _images(batch: Batch) -> list[Tensor]:
    """Returns the images without padding, in 0..1, because the model itself pads and normalises them."""
    return [
        image[:, :height, :width].float() / 255
        for image, (height, width) in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]


@torch.no_grad()
def detect_all(model: TorchvisionRetinaNet, dataset: CocoDataset, args: argparse.Namespace) -> Found:
    """Returns the detections, sorted by image id and descending score."""
    model.eval()
    parts = []
    for batch in on_device(batches_of_set(dataset, loading_of(args), "Detection"), args.device):
        found = _padded(model(_images(batch)))
        parts.append(found_in_batch(found, batch.scales, batch.rows.numpy()))
    return found_in_set(parts, dataset.annotations)


def _padded(found: Sequence[dict[str, Tensor]]) -> Detections:
    fillings = {"boxes": 0, "scores": 0, "labels": -1}
    return Detections(
        *(pad_sequence([one[name] for one in found], True, filling) for name, filling in fillings.items())
    )


if __name__ == "__main__":
    run(main)

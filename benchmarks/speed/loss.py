"""Times the loss of a batch, forward and backward, against the per-image loop of older RetinaNet code.

python -m benchmarks.speed.loss
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from benchmarks.arguments import device_of
from benchmarks.speed.protocol import describe, time_in_turn
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import encode
from retinanet.detector.loss import detection_loss
from retinanet.detector.settings import BACKGROUND_IOU, DEFAULT_LOSS, FOREGROUND_IOU
from retinanet.detector.structures import Losses, Predictions, Targets
from retinanet.reports.tables import markdown_head
from retinanet.settings.options import whole_number

Loss = Callable[[Predictions, Tensor, Targets], Losses]
OBJECTS = 7  # the mean in COCO


def reference_loss(predictions: Predictions, anchors: Tensor, targets: Targets) -> Losses:
    """Computes the loss image by image: IoUs, a one-hot target per anchor, both focal terms, and finally the mean."""
    classification, regression = [], []
    for logits, deltas, boxes, labels in zip(*predictions, *targets, strict=True):
        scores = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
        boxes, labels = boxes[labels >= 0], labels[labels >= 0]
        best, objects = box_iou(anchors, boxes).max(dim=1)
        foreground = best >= FOREGROUND_IOU
        wanted = torch.full_like(scores, -1)
        wanted[best < BACKGROUND_IOU] = 0
        wanted[foreground] = F.one_hot(labels[objects[foreground]], scores.shape[1]).to(scores.dtype)
        alphas = torch.where(wanted == 1, DEFAULT_LOSS.alpha, 1 - DEFAULT_LOSS.alpha)
        weights = alphas * torch.where(wanted == 1, 1 - scores, scores) ** DEFAULT_LOSS.gamma
        entropy = -(wanted * torch.log(scores) + (1 - wanted) * torch.log(1 - scores))
        num_foreground = foreground.sum().clamp(min=1)
        classification.append(torch.where(wanted == -1, 0, weights * entropy).sum() / num_foreground)
        wanted_deltas = encode(boxes[objects[foreground]], anchors[foreground])
        smooth = F.smooth_l1_loss(deltas[foreground], wanted_deltas, beta=DEFAULT_LOSS.beta, reduction="sum")
        regression.append(smooth / 4 / num_foreground)
    return Losses(torch.stack(classification).mean(), torch.stack(regression).mean())


def random_case(args: argparse.Namespace, num_classes: int) -> tuple[Predictions, Tensor, Targets]:
    """Returns predictions like an untrained network's (scores near 0.01), anchors, and objects of random sizes."""
    draw = torch.Generator().manual_seed(0)
    anchors = anchors_for(args.height, args.width, torch.device("cpu"))
    corner = torch.rand(args.batch_size, OBJECTS, 2, generator=draw) * torch.tensor([args.width, args.height]) * 0.6
    size = 24 + torch.rand(corner.shape, generator=draw) * torch.tensor([args.width, args.height]) * 0.35
    targets = Targets(
        torch.cat([corner, corner + size], dim=2).to(args.device),
        torch.randint(0, num_classes, corner.shape[:2], generator=draw).to(args.device),
    )
    logits = torch.randn(args.batch_size, len(anchors), num_classes, generator=draw) * 0.3 - 4.6
    deltas = torch.randn(args.batch_size, len(anchors), 4, generator=draw)
    predictions = Predictions(*(part.to(args.device).requires_grad_() for part in (logits, deltas)))
    return predictions, anchors.to(args.device), targets


def both_ways(loss: Loss, predictions: Predictions, anchors: Tensor, targets: Targets) -> Tensor:
    losses = loss(predictions, anchors, targets)
    total = losses.classification + losses.regression
    torch.autograd.grad(total, predictions)
    return total.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=whole_number(32), default=608)
    parser.add_argument("--width", type=whole_number(32), default=1024)
    parser.add_argument("--batch_size", type=whole_number(1), default=4)
    parser.add_argument("--num_classes", type=whole_number(1), nargs="+", default=[5, 80])
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--repeats", type=whole_number(1), default=9)
    args = parser.parse_args()
    print(f"Loss forward and backward, {args.height} x {args.width}, batch {args.batch_size}\n")
    print(markdown_head("classes", "ours, ms", "loop over images, ms", "ratio", "relative difference"))
    for num_classes in args.num_classes:
        predictions, anchors, targets = random_case(args, num_classes)
        contestants = {"ours": detection_loss, "reference": reference_loss}
        works = {name: partial(both_ways, loss, predictions, anchors, targets) for name, loss in contestants.items()}
        totals = [work() for work in works.values()]
        timings = time_in_turn(works, args.device, warm_up=2, repeats=args.repeats)
        milliseconds = " | ".join(f"{timing.median * 1e3:.0f}" for timing in timings.values())
        ratio = timings["reference"].median / timings["ours"].median
        print(f"| {num_classes} | {milliseconds} | {ratio:.2f} | {(totals[0] / totals[1] - 1).abs():.1e} |", flush=True)
    print(f"\nMedian of {args.repeats}. {describe(args.device)}")


if __name__ == "__main__":
    main()

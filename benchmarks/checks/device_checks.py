"""Compares a device's losses, gradients and detections with the CPU's in float32.

    python -m benchmarks.checks.device_checks --device cuda

float32 runs without TF32 here. Training steps run both eagerly and compiled, in float32, in bfloat16 and, on a GPU, in
float16; the results of each must be within the tolerance of its format. Each combination is checked with the defaults
and with another set of network and loss settings. A compiled step is judged by its 4th call, which replays its CUDA
graph. Finally, a few full training steps are run, including the optimiser and the weight averaging, and their losses
and averaged weights are compared. Exits with code 1 if a difference is too large.
"""

import argparse
import sys
from itertools import product

import torch
from torch import Tensor

from benchmarks.arguments import device_of
from benchmarks.speed.contestants import random_batch
from benchmarks.speed.protocol import describe
from retinanet.data.batches import Batch
from retinanet.data.device_feed import in_steps, on_device
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import find_candidates, suppress
from retinanet.detector.focal_loss import FocalLoss
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DEFAULT_LOSS, Architecture, LossSettings
from retinanet.detector.structures import Predictions, Targets
from retinanet.reports.tables import markdown_head
from retinanet.settings.options import whole_number
from retinanet.training.compilation import Compiled
from retinanet.training.engine import progress_of, train_steps
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage

CPU = torch.device("cpu")
NUM_CALLS = 4  # of a compiled step: CUDA graphs warm up in the first call, are recorded in the second, then replayed
NUM_STEPS = 3  # of a training run
RATE, EMA_DECAY = 1e-3, 0.9
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}  # of a loss
LOSS_SCALE = 2.0**8  # without it float16 would lose small gradients
RECIPES = {
    "defaults": ("none", DEFAULT_LOSS),
    "recommended": ("group", LossSettings(box_loss="giou", matcher="atss", ignore_crowds=True)),
}


def build(args: argparse.Namespace, head_norm: str) -> RetinaNet:
    torch.manual_seed(0)
    model = RetinaNet(Architecture(args.depth, head_norm=head_norm), args.num_classes).train()
    torch.nn.init.normal_(model.classification_head.output.weight, std=0.01)
    torch.nn.init.normal_(model.regression_head.output.weight, std=0.01)
    return model


def step(
    args: argparse.Namespace, recipe: str, device: torch.device, precision: torch.dtype, compiled: bool
) -> dict[str, Tensor]:
    """Returns the losses and the gradient of one batch, as CPU tensors; a compiled step first runs on other batches."""
    head_norm, loss_settings = RECIPES[recipe]
    model, scale = build(args, head_norm).to(device), LOSS_SCALE if precision == torch.float16 else 1.0
    compute_losses = losses_of(
        model,
        args.num_classes,
        device,
        loss_settings=loss_settings,
        precision=precision,
        compiled=Compiled(args.batch_size) if compiled else None,
    )
    for seed in range(0 if compiled else NUM_CALLS - 1, NUM_CALLS):
        batch = batch_of(args, seed)
        model.zero_grad(set_to_none=True)
        losses = compute_losses(batch.images.to(device), Targets(*(tensor.to(device) for tensor in batch.targets)))
        ((losses.classification + losses.regression) * scale).backward()
    gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
    classification, regression = losses
    return {
        "classification loss": classification.detach().cpu(),
        "regression loss": regression.detach().cpu(),
        "gradient": gradient.cpu() / scale,
    }


def batch_of(args: argparse.Namespace, seed: int) -> Batch:
    return random_batch(argparse.Namespace(**{**vars(args), "device": CPU}), seed)


def training(args: argparse.Namespace, device: torch.device) -> dict[str, Tensor]:
    """Returns the losses of a few float32 steps, and how far the averaged weights moved from their initial values."""
    model = build(args, "none").to(device)
    start = torch.cat([value.detach().flatten() for value in model.parameters()])
    state = TrainingState(
        model, build_optimizer(model, "sgd", RATE, 1e-4), device, average=WeightAverage(model, EMA_DECAY)
    )
    batches = [batch_of(args, seed) for seed in range(NUM_STEPS)]
    losses = losses_of(model, args.num_classes, device)
    told = []
    steps = in_steps(on_device(batches, device))
    for rate in train_steps(state, steps, rates=[RATE] * NUM_STEPS, clip_norm=1.0, compute_losses=losses):
        progress = progress_of(state, rate)
        told.append(progress.classification + progress.regression)
    assert state.average is not None
    with state.average.in_place():
        end = torch.cat([value.detach().flatten() for value in model.parameters()])
    return {"losses": torch.tensor(told), "averaged weights": (end - start).cpu()}


def confident_gradient(device: torch.device, rounded_to: torch.dtype, precision: torch.dtype) -> Tensor:
    """Returns the gradient of the focal loss in `precision`, for objects with scores from 0.5 to 0.99.

    The logits are first rounded to the format `rounded_to`.
    """
    draw = torch.Generator().manual_seed(0)
    shape = (1, 4096, 5)  # [B, A, C]
    logits = torch.randn(shape, generator=draw) - 4
    logits[0, :, 0] = torch.linspace(0, 4.6, shape[1])
    logits = logits.to(rounded_to).to(precision).to(device).requires_grad_()
    weights, terms = torch.ones(shape[:2], device=device), torch.arange(shape[1], device=device) * shape[2]
    FocalLoss.apply(logits, weights, terms, weights.flatten(), 0.25, 2.0).backward()
    assert logits.grad is not None
    return logits.grad[0, :, 0].float().cpu()


@torch.no_grad()
def detections(args: argparse.Namespace, device: torch.device) -> tuple[Tensor, ...]:
    """Returns the detections for random logits, which are the same on every device and contain few equal values."""
    draw = torch.Generator().manual_seed(0)
    anchors = anchors_for(args.height, args.width, CPU)
    logits = torch.randn(args.batch_size, len(anchors), args.num_classes, generator=draw) - 3
    deltas = torch.randn(args.batch_size, len(anchors), 4, generator=draw)
    sizes = torch.tensor([[args.height, args.width - 5]] * args.batch_size)
    predictions = Predictions(logits.to(device), deltas.to(device))
    sizes = sizes.to(device)
    candidates = find_candidates(predictions, anchors.to(device), sizes, DEFAULT_DETECTION.num_candidates)
    return tuple(part.cpu() for part in suppress(candidates, sizes))


def difference(got: Tensor, wanted: Tensor) -> float:
    """Returns the norm of the difference, relative to the norm of `wanted`."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--height", type=whole_number(32), default=320)
    parser.add_argument("--width", type=whole_number(32), default=448)
    parser.add_argument("--batch_size", type=whole_number(1), default=2)
    parser.add_argument("--num_classes", type=whole_number(1), default=5)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--precisions", nargs="+", choices=TOLERANCES, help="default: all that the device has")
    parser.add_argument("--no_compile", action="store_true", help="leave the compiled steps out")
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    good = True
    print(markdown_head("check", "difference from the CPU's float32", "allowed", "verdict"))

    def check(name: str, value: float, allowed: float) -> None:
        nonlocal good
        passed = value <= allowed  # NaN fails
        good &= passed
        print(f"| {name} | {value:.1e} | {allowed:.0e} | {'ok' if passed else 'WRONG'} |", flush=True)

    names = args.precisions or [name for name in TOLERANCES if name != "float16" or args.device.type == "cuda"]
    formats = [(getattr(torch, name), TOLERANCES[name]) for name in names]
    for recipe in args.recipes:
        wanted = step(args, recipe, CPU, torch.float32, compiled=False)
        for (precision, allowed), compiled in product(formats, (False,) if args.no_compile else (False, True)):
            name = f"{recipe}, {str(precision).removeprefix('torch.')}{', compiled' if compiled else ''}"
            for part, got in step(args, recipe, args.device, precision, compiled).items():
                # A gradient adds up many rounding errors of mixed sign.
                check(f"{name}: {part}", difference(got, wanted[part]), allowed * (10 if part == "gradient" else 1))
    for precision, allowed in formats:
        name = f"focal loss of confident objects, {str(precision).removeprefix('torch.')}: gradient"
        wanted_gradient = confident_gradient(CPU, precision, torch.float32)
        check(name, difference(confident_gradient(args.device, precision, precision), wanted_gradient), allowed / 3)
    own_training = training(args, CPU)
    for part, got in training(args, args.device).items():
        check(f"training of {NUM_STEPS} steps: {part}", difference(got, own_training[part]), 1e-2)
    for part, got, own in zip(
        ("boxes", "scores", "labels"), detections(args, args.device), detections(args, CPU), strict=True
    ):
        check(f"detections: {part}", difference(got, own), 1e-5)
    print(f"\n{describe(args.device)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

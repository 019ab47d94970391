"""Compares the speed of our training step with torchvision's; with --data, also measures ours on JPEG files.

    python -m benchmarks.speed.step --depth 18 --height 320 --width 448 --batch_size 2
    python -m benchmarks.speed.step --depth 50 --batch_size 16 --compile --data $VOC5

contestants.py describes the contestants. Peak memory is measured in separate processes, and only for torchvision's step
and our default step (not for our compiled step, or our step with --recipe). The fraction of the measured matmul rate is
the number of operations in torchvision's step (which, unlike ours, skips none), divided by the contestant's time per
step and by the measured rate of matrix products.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from benchmarks.speed import contestants, protocol
from retinanet.data.batches import Batch
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.dataset import load_set
from retinanet.data.device_feed import in_steps, on_device
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import Architecture
from retinanet.reports.tables import markdown_head
from retinanet.runtime.device import num_workers
from retinanet.settings.options import whole_number
from retinanet.settings.shared import MAX_PIXELS, MAX_SIDE, MIN_SIDE
from retinanet.settings.train import RECIPES
from retinanet.training.compilation import Compiled, few_sides
from retinanet.training.engine import progress_of, train_steps
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contestants.add_contest_flags(parser)
    parser.add_argument("--compile", action="store_true", help="ours compiled too, as a third contestant")
    parser.add_argument("--recipe", choices=tuple(RECIPES), help="ours with this recipe too, as another contestant")
    parser.add_argument(
        "--matrix_side", type=whole_number(1), help="side of the matrices; default: 8192, on a CPU 2048"
    )
    parser.add_argument("--data", type=Path, help="a data folder, to measure from JPEGs to weights")
    parser.add_argument("--set_name", default="train")
    parser.add_argument("--min_side", type=whole_number(64), default=MIN_SIDE, help="with --data")
    parser.add_argument("--max_side", type=whole_number(64), default=MAX_SIDE, help="with --data")
    parser.add_argument("--num_batches", type=whole_number(1), default=40, help="with --data, batches per window")
    parser.add_argument("--workers", type=whole_number(0), help="with --data")
    return parser


def compare(args: argparse.Namespace, argv: list[str]) -> None:
    print(f"Training step, {contestants.case_of(args)}\n")
    print(
        markdown_head("step", "images/s", "times torchvision", "GB at the peak", "fraction of the measured matmul rate")
    )
    works = {"torchvision": contestants.torchvision_step(args), "ours": contestants.our_step(args)}
    if args.compile:
        works["ours, compiled"] = contestants.our_step(args, compiled=True)
    if args.recipe:
        works[f"ours, --recipe {args.recipe}"] = contestants.our_step(args, recipe=args.recipe)
    operations = protocol.count_operations(works["torchvision"])
    rate = protocol.matrix_rate(args.device, contestants.precision_of(args), args.matrix_side)
    timings = protocol.time_in_turn(works, args.device, args.warm_up, args.repeats)
    for name, timing in timings.items():
        ratio = timings["torchvision"].median / timing.median
        memory = f"{protocol.peak_memory('benchmarks.speed.step', argv, name):.2f}" if "," not in name else ""
        share = operations / timing.median / rate
        print(f"| {name} | {timing.rate(args.batch_size)} | {ratio:.2f} | {memory} | {share:.0%} |", flush=True)
    print(f"\n{operations / 1e9:.0f} GFLOP per step; matrix products: {rate / 1e12:.3g} TFLOP/s.")
    if args.profile:
        print()
        protocol.print_profile(works["ours"], args.device, contestants.precision_of(args))


def from_files(args: argparse.Namespace) -> None:
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": MAX_PIXELS}
    annotations, dataset = load_set(args.data, args.set_name, **sides)
    workers = num_workers(args.workers, args.device)
    loader, _ = training_loader(
        dataset,
        LoaderSettings(
            args.batch_size,
            workers,
            args.device,
            padded_sides=tuple(few_sides(args.min_side, args.max_side)) if args.compile else None,
        ),
        seed=0,
        drop_last=True,
    )
    num_batches = min(args.num_batches, len(loader))
    kept: list[Batch] = [loaded.batch for loaded in islice(loader, num_batches)]
    model = RetinaNet(Architecture(args.depth), len(annotations.class_names)).to(args.device)
    state = TrainingState(model, build_optimizer(model, "adam", 1e-5, 0.0), args.device)
    losses = losses_of(
        model,
        len(annotations.class_names),
        args.device,
        precision=contestants.precision_of(args),
        compiled=Compiled(args.batch_size) if args.compile else None,
    )

    def train(batches: Iterable[Batch]) -> None:
        rates = [1e-5] * num_batches
        steps = in_steps(on_device(islice(batches, num_batches), args.device))
        for _ in train_steps(state, steps, rates=rates, clip_norm=0.1, compute_losses=losses):
            pass
        progress_of(state, 1e-5)  # a log line waits for the device
        state.skipped.take_new()

    works: dict[str, Callable[[], None]] = {
        "from memory": partial(train, kept),
        "from JPEGs": lambda: train(loaded.batch for loaded in loader),
    }
    timings = protocol.time_in_turn(works, args.device, warm_up=1, repeats=3)
    num_images = num_batches * args.batch_size
    print(f"\nResNet-{args.depth}, {args.min_side}/{args.max_side}, {num_images} photographs, {workers} workers\n")
    print(markdown_head("batches", "images/s", "share"))
    for name, timing in timings.items():
        share = timings["from memory"].median / timing.median
        print(f"| {name} | {timing.rate(num_images)} | {share:.0%} |", flush=True)


def main() -> None:
    args = build_parser().parse_args()
    if args.memory_of:
        step = contestants.our_step if args.memory_of == "ours" else contestants.torchvision_step
        protocol.print_peak(step(args), args.device)
        return
    compare(args, sys.argv[1:])
    if args.data:
        torch.cuda.empty_cache()
        from_files(args)
    print(f"\nMedian of {args.repeats} (slowest to fastest). {protocol.describe(args.device)}")


if __name__ == "__main__":
    main()

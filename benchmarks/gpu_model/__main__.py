"""Predicts the time of a training step and of a detection on a GPU, from work that is counted without a GPU.

    python -m benchmarks.gpu_model

A simulated GPU (tests/gpu) counts launches, FLOPs, bytes and peak memory, and rooflines of an H100 and an H200 turn the
first three into time. The results are predictions; benchmarks/on_gpu.sh takes measurements on a real GPU.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu_model.roofline import GPUS, MATRIX_RATE, Work
from benchmarks.speed.protocol import describe
from retinanet.reports.tables import markdown_head, markdown_row

ROOT = Path(__file__).parents[2]
UNDER_LIBRARY = "--under_library"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--height", type=int, default=608)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--num_classes", type=int, default=80)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[16, 2])
    parser.add_argument(UNDER_LIBRARY, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.under_library:
        print_predictions(args)
        return 0
    return again_under_library()


def again_under_library() -> int:
    """Runs this command again in a process that finds the simulated GPU."""
    sys.path.insert(0, str(ROOT / "tests"))
    from gpu.build import built, environment_with, lacking

    if reason := lacking():
        print(f"gpu_model: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_with(built(Path(folder)))
        environment["TORCHINDUCTOR_CACHE_DIR"] = environment["TRITON_CACHE_DIR"] = folder
        command = [sys.executable, "-m", "benchmarks.gpu_model", UNDER_LIBRARY, *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def print_predictions(args: argparse.Namespace) -> None:
    from benchmarks.gpu_model.cases import Case, compiled_step, detection, eager_step
    from retinanet.detector.settings import LossSettings

    size = (args.depth, args.height, args.width)
    names = [f"{gpu.name}, {kind}" for gpu in GPUS for kind in ("ms", "images/s", "of the rate")]
    columns = ("predicted", "launches", "TFLOP", "GB moved", "GB at the peak", "host, ms", *names)
    print(markdown_head(*columns))
    for batch_size in args.batch_sizes:
        case = Case(*size, batch_size, args.num_classes)
        eager = eager_step(case)
        _print_row(f"step, {case.name}", batch_size, eager.work, eager.peak)
        _print_row("the same, compiled", batch_size, compiled_step(case, eager.work))
        strong = case._replace(loss=LossSettings(matcher="low_quality", box_loss="giou", ignore_crowds=True))
        for name, other in {
            "losses of --recipe strong, and its average": strong._replace(ema_decay=0.999),
            "--head_norm group": case._replace(head_norm="group"),
        }.items():
            counted = eager_step(other)
            _print_row(f"step, {name}", batch_size, counted.work, counted.peak)
            _print_row("the same, compiled", batch_size, compiled_step(other, counted.work))
    for batch_size in args.batch_sizes:
        found = detection(Case(*size, batch_size, args.num_classes))
        _print_row(f"detection, batch {batch_size}", batch_size, found.work, found.peak)
    print(f"\nThe matrix rate is {MATRIX_RATE / 1e12:.0f} TFLOP/s. {describe(torch.device('cpu'))}")


def _print_row(name: str, batch_size: int, work: Work, peak: int | None = None) -> None:
    launched = f"{work.launches}" + (f" + {work.replays} graphs" if work.replays else "")
    cells = [name, launched, f"{work.flops / 1e12:.2f}", f"{work.bytes / 1e9:.1f}"]
    cells += [f"{peak / 1e9:.2f}" if peak else "", f"{work.host_seconds() * 1e3:.1f}"]
    for gpu in GPUS:
        seconds = work.seconds(gpu)
        cells += [f"{seconds * 1e3:.1f}", f"{batch_size / seconds:.0f}", f"{work.share_of_matrix_rate(gpu):.0%}"]
    print(markdown_row(*cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())

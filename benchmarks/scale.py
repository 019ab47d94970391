"""Computes the loader cores and the disk and network bandwidth that many GPUs need, and how long the GPUs wait.

    python -m benchmarks.scale

Each step waits for the slowest GPU (the times of the GPUs are drawn at random), then for the part of the all-reduce
that the backward pass doesn't hide, then for the barrier that synchronises the ranks. All inputs are below, each with
its source.
"""

import argparse
import math
from typing import NamedTuple

import numpy as np

from retinanet.reports.tables import markdown_head, markdown_row

MEASURED, PREDICTED, ASSUMED = "measured", "predicted", "assumed"


class Input(NamedTuple):
    value: float
    what: str
    kind: str
    source: str


INPUTS = {
    "gpu_images": Input(
        280, "images/s of an H100, R50 608x1024, batch 16", PREDICTED, "`python -m benchmarks.gpu_model`"
    ),
    "core_images": Input(
        338, "images/s per loader core", MEASURED, "`python -m benchmarks.speed.loader --coco_path $VOC5 --repeats 15`"
    ),
    "image_bytes": Input(48e3, "bytes per JPEG of 500 x 375 pixels", MEASURED, "the mean of the files of $VOC5"),
    "gradient_bytes": Input(152e6, "bytes of gradients, R50", MEASURED, "4 bytes per parameter"),
    "save_seconds": Input(
        0.75, "seconds per save of last.pt, once a minute", MEASURED, "`python -m benchmarks.speed.saving --depth 50`"
    ),
    "start_seconds": Input(
        220, "seconds of the first start on a million images", MEASURED, "`python -m benchmarks.speed.startup`"
    ),
    "machine_gpus": Input(8, "GPUs per machine", ASSUMED, "usual for rented machines"),
    "inside_bandwidth": Input(
        300e9, "bytes/s between the GPUs of a machine", ASSUMED, "two thirds of NVLink's 450 GB/s"
    ),
    "machine_bandwidth": Input(40e9, "bytes/s between machines", ASSUMED, "four fifths of 400 Gbit/s"),
    "hidden_share": Input(
        0.5, "fraction of the step during which gradients can be sent", ASSUMED, "most of the backward pass"
    ),
    "spread": Input(
        0.03,
        "standard deviation of a GPU's step time, relative to its mean",
        ASSUMED,
        "images hold different numbers of objects",
    ),
    "hop_seconds": Input(60e-6, "seconds per hop of the barrier", ASSUMED, "Gloo over TCP, log2(GPUs) hops"),
}


class Outcome(NamedTuple):
    """The outcome of a run on `num_gpus` GPUs."""

    num_gpus: int
    images_per_step: int
    images_per_second: float
    efficiency: float  # fraction of the rate that independent GPUs would reach together
    waiting: float  # seconds per step spent waiting for the slowest GPU
    all_reduce: float  # seconds per step that the backward pass doesn't hide
    barrier: float  # seconds per step
    machine_cores: float  # loader cores per machine
    disk: float  # bytes/s that all machines read together
    network: float  # bytes/s that a machine must send to hide the whole all-reduce


def simulate(num_gpus: int, batch_size: int, values: dict[str, float], steps: int = 400, seed: int = 0) -> Outcome:
    """Simulates the steps of a run with `values` for the INPUTS."""
    own = batch_size / values["gpu_images"]  # seconds
    draw = np.random.default_rng(seed)
    slowest = (own * (1 + values["spread"] * draw.standard_normal((steps, num_gpus)))).max(axis=1).mean()
    machines = math.ceil(num_gpus / values["machine_gpus"])
    sent = 2 * values["gradient_bytes"] * (num_gpus - 1) / num_gpus
    bandwidth = values["machine_bandwidth"] if machines > 1 else values["inside_bandwidth"]
    seconds = 0.0 if num_gpus == 1 else sent / bandwidth
    all_reduce = max(0.0, seconds - values["hidden_share"] * own)
    barrier = values["hop_seconds"] * math.log2(num_gpus)
    step = slowest + all_reduce + barrier
    saving = values["save_seconds"] / 60  # while one rank saves, the others wait
    rate = num_gpus * batch_size / step * (1 - saving)
    cores = min(num_gpus, values["machine_gpus"]) * batch_size / step / values["core_images"]
    network = 0.0 if machines == 1 else sent / (values["hidden_share"] * own)
    return Outcome(
        num_gpus,
        num_gpus * batch_size,
        rate,
        rate / (num_gpus * values["gpu_images"]),
        slowest - own,
        all_reduce,
        barrier,
        cores,
        rate * values["image_bytes"],
        network,
    )


def table(outcomes: list[Outcome]) -> list[str]:
    head = ("GPUs", "images per step", "images/s", "scaling efficiency", "slowest GPU, ms", "all-reduce, ms")
    lines = [markdown_head(*head, "barrier, ms", "loader cores per machine", "disk, MB/s", "network per machine, GB/s")]
    for one in outcomes:
        milliseconds = [f"{1e3 * seconds:.1f}" for seconds in (one.waiting, one.all_reduce, one.barrier)]
        needs = [f"{one.machine_cores:.1f}", f"{one.disk / 1e6:.0f}", f"{one.network / 1e9:.1f}"]
        rates = [f"{one.images_per_second:.0f}", f"{one.efficiency:.0%}"]
        lines.append(markdown_row(str(one.num_gpus), str(one.images_per_step), *rates, *milliseconds, *needs))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--batch_size", type=int, default=16, help="images per GPU")
    for name, one in INPUTS.items():
        parser.add_argument(f"--{name}", type=float, default=one.value, help=f"{one.what} ({one.kind})")
    args = parser.parse_args()
    values = {name: getattr(args, name) for name in INPUTS}
    print("\n".join(table([simulate(count, args.batch_size, values) for count in args.gpus])))
    most, seconds = max(args.gpus), values["start_seconds"]
    print(f"\nA first start on a million images costs {most} GPUs {most * seconds / 3600:.1f} GPU-hours of waiting.\n")
    print(markdown_head("input", "value", "", "where it comes from"))
    for name, one in INPUTS.items():
        kind = one.kind if values[name] == one.value else "given"
        print(markdown_row(one.what, f"{values[name]:g}", kind, one.source))


if __name__ == "__main__":
    main()

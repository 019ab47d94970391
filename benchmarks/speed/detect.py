"""Measures the speed of detection, from uint8 images to final boxes, compared with torchvision's RetinaNet.

    python -m benchmarks.speed.detect --depth 18 --height 320 --width 448 --batch_size 2
    python -m benchmarks.speed.detect --checkpoint_path output/best.pt --coco_path data

contestants.py describes the contestants with random weights. trained.py describes those with a checkpoint's weights,
which produce few scores above the threshold. On a CPU, some of these use bfloat16, INT8 or OpenVINO. Peak memory is
measured in a separate process for each contestant except these CPU variants.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from benchmarks.speed import contestants, protocol, trained
from retinanet.detector.settings import DEFAULT_DETECTION
from retinanet.reports.tables import markdown_head
from retinanet.runtime.console import run
from retinanet.settings.options import whole_number

Build = Callable[[argparse.Namespace], contestants.Work]
FROM_FILES = "predict, from files to pictures"  # it returns no detections
RANDOM: dict[str, Build] = {"torchvision": contestants.torchvision_detection, "ours": contestants.our_detection}
TRAINED: dict[str, Build] = {
    "ours": trained.our_detection,
    "torchvision": trained.torchvision_detection,
    "ours, on onnxruntime": partial(trained.exported_detection, form="onnx"),
    FROM_FILES: trained.predict_command,
}
ON_CPU: dict[str, Build] = {
    "ours, bfloat16": partial(trained.our_detection, precision="bfloat16"),
    "ours, INT8 on onnxruntime": partial(trained.exported_detection, form="onnx", int8=True),
    "ours, on OpenVINO": partial(trained.exported_detection, form="openvino"),
    "ours, bfloat16 on OpenVINO": partial(trained.exported_detection, form="openvino", precision="bfloat16"),
    "ours, INT8 on OpenVINO": partial(trained.exported_detection, form="openvino", int8=True),
}


def builders_of(args: argparse.Namespace) -> dict[str, Build]:
    """Returns the contestants' builders, without torchvision's if its network can't hold the checkpoint's weights."""
    if not args.checkpoint_path:
        return RANDOM
    left_out = set() if trained.has_twin(args) else {"torchvision"}
    return {
        name: build
        for name, build in {**TRAINED, **(ON_CPU if args.device.type == "cpu" else {})}.items()
        if name not in left_out
    }


def times(other: protocol.Timing | None, timing: protocol.Timing) -> str:
    return f"{other.median / timing.median:.2f}" if other else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contestants.add_contest_flags(parser)
    parser.add_argument("--checkpoint_path", type=Path, help="its depth and classes override the flags")
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="data folder, for its val images")
    parser.add_argument("--num_images", type=whole_number(1), default=8, help="with --checkpoint_path")
    parser.add_argument(
        "--num_candidates",
        type=whole_number(1),
        default=DEFAULT_DETECTION.num_candidates,
        help="candidates for NMS, with --checkpoint_path: ours per image, torchvision's per level",
    )
    args = parser.parse_args()
    builders = builders_of(args)
    if args.memory_of:
        protocol.print_peak(builders[args.memory_of](args), args.device)
        return 0
    works = {name: build(args) for name, build in builders.items()}
    num_images = args.batch_size
    found: dict[str, trained.Found] = {}
    if args.checkpoint_path:
        found = {name: cast(trained.Found, work()) for name, work in works.items() if name != FROM_FILES}
        num_images = len(found["ours"])
        print(f"Detection with {args.checkpoint_path.name}, {args.height} x {args.width}, batch {args.batch_size}\n")
    else:
        print(f"Detection, {contestants.case_of(args)}\n")
    print(markdown_head("detection", "images/s", "times ours", "times torchvision", "GB at the peak"))
    timings = protocol.time_in_turn(works, args.device, args.warm_up, args.repeats)
    for name, timing in timings.items():
        ratios = [times(timings.get(other), timing) for other in ("ours", "torchvision")]
        has_memory = name not in ON_CPU  # theirs would include the quantisation
        memory = "-"
        if has_memory:
            memory = f"{protocol.peak_memory('benchmarks.speed.detect', sys.argv[1:], name):.2f}"
        print(f"| {name} | {timing.rate(num_images)} | {' | '.join(ratios)} | {memory} |", flush=True)
    for name in list(found)[1:]:
        print(f"\n{name}: {trained.agreement(found['ours'], found[name])}", end="")
    if args.profile:
        print("\n")
        protocol.print_profile(works["ours"], args.device, contestants.precision_of(args))
    print(f"\nMedian of {args.repeats} (slowest to fastest). {protocol.describe(args.device)}")
    return 0


if __name__ == "__main__":
    run(main)

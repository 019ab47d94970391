"""Measures detection, from uint8 images to final boxes, compared with torchvision's RetinaNet.

    python -m benchmarks.speed.detect --depth 18 --height 320 --width 448 --batch_size 2
    python -m benchmarks.speed.detect --checkpoint_path output/best.pt --coco_path data

contestants.py describes the contestants, and trained.py those with a checkpoint's weights, of which few scores pass the
threshold. Peak memory is measured in a separate process for each contestant.
"""

import argparse
import sys
from pathlib import Path
from typing import cast

from benchmarks.speed import contestants, protocol, trained
from retinanet.detector.settings import DEFAULT_DETECTION
from retinanet.reports.tables import markdown_head
from retinanet.runtime.console import run
from retinanet.settings.options import whole_number

RANDOM = {"torchvision": contestants.torchvision_detection, "ours": contestants.our_detection}
TRAINED = {
    "torchvision": trained.torchvision_detection,
    "ours": trained.our_detection,
    "ours, on onnxruntime": trained.onnx_detection,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contestants.add_contest_flags(parser)
    parser.add_argument("--checkpoint_path", type=Path, help="of ours; its depth and classes replace those given")
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="whose val images it detects on")
    parser.add_argument("--num_images", type=whole_number(1), default=8, help="with --checkpoint_path")
    parser.add_argument(
        "--num_candidates",
        type=whole_number(1),
        default=DEFAULT_DETECTION.num_candidates,
        help="for NMS, with --checkpoint_path: ours of an image, torchvision's of a level",
    )
    args = parser.parse_args()
    builders = TRAINED if args.checkpoint_path else RANDOM
    if args.memory_of:
        protocol.print_peak(builders[args.memory_of](args), args.device)
        return 0
    works = {name: build(args) for name, build in builders.items()}
    num_images = args.batch_size
    if args.checkpoint_path:
        theirs, ours, exported = (cast(trained.Found, work()) for work in works.values())
        num_images = len(ours)
        print(f"Detection with {args.checkpoint_path.name}, {args.height} x {args.width}, batch {args.batch_size}\n")
    else:
        print(f"Detection, {contestants.case_of(args)}\n")
    print(markdown_head("detection", "images/s", "times torchvision", "GB at the peak"))
    timings = protocol.time_in_turn(works, args.device, args.warm_up, args.repeats)
    for name, timing in timings.items():
        ratio = timings["torchvision"].median / timing.median
        memory = protocol.peak_memory("benchmarks.speed.detect", sys.argv[1:], name)
        print(f"| {name} | {timing.rate(num_images)} | {ratio:.2f} | {memory:.2f} |", flush=True)
    if args.checkpoint_path:
        print(f"\nTorchvision's. {trained.agreement(ours, theirs)}")
        print(f"onnxruntime's. {trained.agreement(ours, exported)}", end="")
    print(f"\nMedian of {args.repeats} (slowest to fastest). {protocol.describe(args.device)}")
    return 0


if __name__ == "__main__":
    run(main)

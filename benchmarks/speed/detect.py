"""Detection, from uint8 images to the boxes that are kept, ours beside torchvision's RetinaNet.

    python -m benchmarks.speed.detect --depth 18 --height 320 --width 448 --batch_size 2

Who is compared: see contestants.py. Peak memory is measured in a process of its own for each.
"""

import argparse
import sys

from benchmarks.speed import contestants, protocol
from retinanet.reports.tables import markdown_head

DETECTIONS = {"torchvision": contestants.torchvision_detection, "ours": contestants.our_detection}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contestants.add_contest_flags(parser)
    args = parser.parse_args()
    if args.memory_of:
        protocol.print_peak(DETECTIONS[args.memory_of](args), args.device)
        return
    print(f"Detection, {contestants.case_of(args)}\n")
    print(markdown_head("detection", "images/s", "times torchvision", "GB at the peak"))
    works = {name: build(args) for name, build in DETECTIONS.items()}
    timings = protocol.time_in_turn(works, args.device, args.warm_up, args.repeats)
    for name, timing in timings.items():
        ratio = timings["torchvision"].median / timing.median
        memory = protocol.peak_memory("benchmarks.speed.detect", sys.argv[1:], name)
        print(f"| {name} | {timing.rate(args.batch_size)} | {ratio:.2f} | {memory:.2f} |", flush=True)
    print(f"\nMedian of {args.repeats} (slowest to fastest). {protocol.describe(args.device)}")


if __name__ == "__main__":
    main()

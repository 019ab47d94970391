"""Measures the time and memory of each backend for a COCO-sized evaluation, and compares the backends' numbers.

    python -m benchmarks.speed.evaluate

The annotations and detections are generated: 5,000 images of 480 x 640 pixels with 7 objects each, and 100 detections
per image, scattered around the objects. Each backend runs once, in a separate process; pycocotools takes a minute.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.arguments import device_of
from benchmarks.speed.protocol import describe, peak_of_this_process
from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found, joined
from retinanet.evaluation.coco_table import evaluate
from retinanet.reports.tables import markdown_head
from retinanet.settings.options import whole_number
from retinanet.settings.shared import BACKENDS, installed_backends

OBJECTS = 7


def random_case(args: argparse.Namespace) -> tuple[Annotations, Found]:
    draw = np.random.default_rng(0)
    count = args.num_images * OBJECTS
    sizes = np.exp(draw.uniform(np.log(8), np.log(300), (count, 2)))
    boxes = np.concatenate([draw.uniform(0, [640 - 300, 480 - 300], (count, 2)), sizes], axis=1).round(2)
    labels = draw.integers(0, args.num_classes, count)
    annotations = Annotations(
        path=Path("generated.json"),
        class_names=[f"class {label}" for label in range(args.num_classes)],
        category_ids=list(range(1, args.num_classes + 1)),
        image_ids=np.arange(1, args.num_images + 1),
        file_names=np.array([b"%d.jpg" % image for image in range(args.num_images)]),
        sizes=np.tile([480, 640], (args.num_images, 1)),
        first=np.arange(0, count + 1, OBJECTS),
        boxes=boxes,
        labels=labels,
        crowds=draw.random(count) < 0.01,
        areas=boxes[:, 2] * boxes[:, 3] * 0.7,
    )
    parts = []
    for image in range(args.num_images):
        near = image * OBJECTS + draw.integers(0, OBJECTS, args.detections)
        moved = boxes[near] + draw.normal(0, 0.15, (args.detections, 4)) * boxes[near][:, [2, 3, 2, 3]]
        moved[:, 2:] = np.abs(moved[:, 2:]) + 1
        classes = np.where(draw.random(args.detections) < 0.6, labels[near], draw.integers(0, args.num_classes))
        scores = draw.random(args.detections).round(3)  # some are tied
        parts.append(Found(np.full(args.detections, image), classes, scores, moved.round(2)))
    return annotations, joined(parts)


def run_one(args: argparse.Namespace) -> None:
    annotations, found = random_case(args)
    before = peak_of_this_process()
    started = time.perf_counter()
    table = evaluate(annotations, found, args.backend)
    seconds = time.perf_counter() - started
    digest = hashlib.sha256(table.precision.tobytes()).hexdigest()[:12]
    memory = (peak_of_this_process() - before) / 1e9
    print(json.dumps({"seconds": seconds, "memory": memory, "digest": digest, "numbers": table.numbers}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=whole_number(1), default=5000)
    parser.add_argument("--detections", type=whole_number(1), default=100, help="detections per image")
    parser.add_argument("--num_classes", type=whole_number(1), default=80)
    parser.add_argument("--backend", choices=BACKENDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.backend:
        run_one(args)
        return
    print(f"{args.num_images} images x {args.detections} detections, {args.num_classes} classes\n")
    print(markdown_head("backend", "seconds", "times pycocotools", "GB added", "AP", "hash of the precision array"))
    results = {}
    for backend in reversed(installed_backends()):
        command = [sys.executable, "-m", "benchmarks.speed.evaluate", *sys.argv[1:], "--backend", backend]
        results[backend] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        result = results[backend]
        ratio = results["pycocotools"]["seconds"] / result["seconds"]
        cells = f"{result['seconds']:.2f} | {ratio:.1f} | {result['memory']:.2f} | {result['numbers'][0]:.6f}"
        print(f"| {backend} | {cells} | {result['digest']} |", flush=True)
    same = all(result["numbers"] == results["pycocotools"]["numbers"] for result in results.values())
    print(f"\nThe twelve numbers are {'the same to the last digit' if same else 'NOT THE SAME'}. ", end="")
    print(describe(device_of("cpu")))


if __name__ == "__main__":
    main()

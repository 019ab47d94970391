"""Measures the time that each part of the report takes for a COCO-sized result file.

    python -m benchmarks.speed.report

The dataset is the one in evaluate.py: 5,000 images and 80 classes, with 7 objects and 100 detections per image. Each
part runs once, from reading the result file to writing the last file of the report.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.arguments import device_of
from benchmarks.speed.evaluate import random_case
from benchmarks.speed.protocol import describe, peak_of_this_process
from retinanet.coco.results import load_results, rows_of
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.analysis import NUM_DRAWS, analyse
from retinanet.evaluation.coco_table import evaluate
from retinanet.reports.analysis_text import analysis_lines
from retinanet.reports.html_report import write_report
from retinanet.settings.options import whole_number
from retinanet.settings.shared import installed_backends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=whole_number(1), default=5000)
    parser.add_argument("--num_classes", type=whole_number(1), default=80)
    parser.add_argument("--detections", type=whole_number(0), default=100)
    parser.add_argument("--num_draws", type=whole_number(0), default=NUM_DRAWS)
    args = parser.parse_args()
    print(describe(device_of("cpu")))
    annotations, found = random_case(args)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps(rows_of(found, annotations)))
        height, width = annotations.sizes[0].tolist()
        Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(Path(folder) / "1.png")
        for index in range(len(annotations.image_ids)):
            (Path(folder) / annotations.file_name(index)).hardlink_to(Path(folder) / "1.png")
        dataset = CocoDataset(annotations, Path(folder), 608, 1024)
        times = [time.perf_counter()]

        def told(part: str) -> None:
            times.append(time.perf_counter())
            print(f"{part}: {times[-1] - times[-2]:.1f} s", flush=True)

        found = load_results(path, annotations)
        told("reading and checking the result file")
        table = evaluate(annotations, found, installed_backends()[0])
        told("the COCO table")
        analysis = analyse(annotations, found, args.num_draws)
        told(f"analysis with {args.num_draws} draws")
        analysis_lines(analysis, args.num_images)
        write_report(Path(folder) / "report", analysis, table, dataset, source="results.json")
        told("report.html, metrics.json and the figures")
        print(f"together: {times[-1] - times[0]:.1f} s; peak memory {peak_of_this_process() / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

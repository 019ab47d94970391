"""Measures --track: how long a tracker takes to log a line's numbers, relative to the time between log lines.

    WANDB_MODE=offline python -m benchmarks.speed.tracking --folder FOLDER

A run logs a line every --log_every steps. MLflow logs to MLFLOW_TRACKING_URI.
"""

import argparse
import statistics
import time
from pathlib import Path

from retinanet.reports.tables import markdown_head, markdown_row
from retinanet.settings.options import flat, number_above, whole_number
from retinanet.settings.train import TRACKERS, Output, TrainSettings
from retinanet.training.trackers import TrackedRun, open_trackers

NUMBERS = 8  # in a log line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the trackers' files")
    parser.add_argument("--kinds", choices=TRACKERS, nargs="+", default=TRACKERS)
    parser.add_argument("--calls", type=whole_number(2), default=50)
    parser.add_argument("--step_seconds", type=number_above(0), default=0.05, help="seconds per training step")
    parser.add_argument("--log_every", type=whole_number(1), default=Output.log_every)
    args = parser.parse_args()
    print(markdown_head("tracker", "ms per call", f"of {args.log_every} steps of {args.step_seconds:g} s"))
    for kind in args.kinds:
        folder = args.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        trackers = open_trackers((kind,), TrackedRun(folder, "benchmark", flat(TrainSettings()), 0))
        seconds = []
        for step in range(1, args.calls + 1):
            started = time.perf_counter()
            trackers.log(step, {f"train/number {number}": step / number for number in range(1, NUMBERS + 1)})
            seconds.append(time.perf_counter() - started)
        trackers.close()
        median = statistics.median(seconds)
        share = median / (args.log_every * args.step_seconds)
        print(markdown_row(kind, f"{1e3 * median:.2f} (to {1e3 * max(seconds):.2f})", f"{share:.3%}"))


if __name__ == "__main__":
    main()

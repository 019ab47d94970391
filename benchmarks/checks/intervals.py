"""Measures how often the 95% intervals of AP cover the true AP of simulated detectors.

    python -m benchmarks.checks.intervals

Random datasets are drawn; their images differ in difficulty. The true AP is the mean AP of many such datasets. For each
further dataset, an interval is computed from its own images only; 95% of these intervals should cover the true AP.
"""

import argparse
import sys
import time
from typing import NamedTuple

import numpy as np

from retinanet.evaluation.average_precision import Ranked, average_precision, mean_of_classes
from retinanet.evaluation.intervals import draws_of_images, interval
from retinanet.evaluation.matches import IOUS
from retinanet.settings.options import whole_number


class Coverage(NamedTuple):
    truth: float  # the mean AP
    spread: float  # the standard deviation of AP over the sets
    width: float  # the standard deviation of AP over the draws of a set's images, averaged over the sets
    covered: float  # fraction of the intervals that contain the true AP


def simulated(draw: np.random.Generator, num_images: int, num_classes: int) -> list[Ranked]:
    """Simulates the detections of a detector on a random dataset."""
    hardness = draw.normal(0, 1, num_images)
    ranked = []
    for _ in range(num_classes):
        counts = draw.poisson(1.5 / num_classes * np.exp(draw.normal(0, 0.5, num_images)))
        object_images = np.repeat(np.arange(num_images), counts)
        detected = draw.random(len(object_images)) < 1 / (1 + np.exp(0.7 * hardness[object_images] - 1.2))
        images = object_images[detected]
        quality = draw.normal(7.5 - 0.9 * hardness[images], 2.5).clip(0, 10).astype(int)  # number of IoUs reached
        false_images = np.repeat(np.arange(num_images), draw.poisson(3 / num_classes, num_images))
        scores = np.concatenate(
            [draw.normal(0.8 + 0.15 * quality - 0.4 * hardness[images], 1.2), draw.normal(-1, 1.2, len(false_images))]
        )
        hits = np.arange(len(IOUS))[:, None] < np.concatenate([quality, np.zeros(len(false_images), int)])
        order = np.argsort(-scores)
        everywhere = np.concatenate([images, false_images])[order]
        ranked.append(Ranked(everywhere, hits[:, order], np.zeros_like(hits), object_images))
    return ranked


def ap_of(ranked: list[Ranked], weights: np.ndarray) -> np.ndarray:
    """Returns the AP for each row of `weights`: [W]."""
    return mean_of_classes(np.stack([average_precision(one, weights).ap.mean(axis=0) for one in ranked]))


def coverage(num_images: int, num_classes: int, num_sets: int, num_draws: int, seed: int = 0) -> Coverage:
    draw = np.random.default_rng(seed)
    once = np.ones((1, num_images), np.uint8)
    sets = [ap_of(simulated(draw, num_images, num_classes), once)[0] for _ in range(2 * num_sets)]
    truth = float(np.mean(sets))
    weights = draws_of_images(num_images, num_draws)
    covered, widths = 0, []
    for _ in range(num_sets):
        ranked = simulated(draw, num_images, num_classes)
        drawn = ap_of(ranked, weights)
        found = interval(ap_of(ranked, once)[0], drawn)
        covered += found.low <= truth <= found.high
        widths.append(drawn.std())
    return Coverage(truth, float(np.std(sets)), float(np.mean(widths)), covered / num_sets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_sets", type=whole_number(1), default=1000)
    parser.add_argument("--num_draws", type=whole_number(1), default=500)
    args = parser.parse_args()
    print("images classes  mean AP  spread  spread by the draws  covered")
    for num_images, num_classes in ((100, 1), (200, 5), (500, 20), (1000, 5)):
        start = time.perf_counter()
        one = coverage(num_images, num_classes, args.num_sets, args.num_draws)
        print(
            f"{num_images:>6} {num_classes:>7}  {one.truth:>7.4f}  {one.spread:.4f}  {one.width:>19.4f}  "
            f"{one.covered:>7.1%}   ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

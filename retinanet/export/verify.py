"""Compares the detections of an exported file with the detections of its checkpoint on the images of a set."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.coco.annotations import has_objects
from retinanet.coco.results import Found
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset
from retinanet.detector.detect import suppress
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates, Detections
from retinanet.evaluation.coco_table import AP, evaluate
from retinanet.evaluation.detect_set import batches_of_set, found_in_batch, found_in_set
from retinanet.evaluation.views import Look
from retinanet.runtime.printable import counted
from retinanet.settings.shared import installed_backends

MOST_PIXELS, MOST_SCORE, MOST_AP = 0.1, 1e-4, 1e-3  # the largest differences allowed
FAR, FAR_SCORE = 2.0, 0.02  # differences in pixels and in score beyond which two detections don't correspond


class Comparison(NamedTuple):
    """Holds the differences between the detections of an exported file and of its checkpoint."""

    num_images: int
    counts: tuple[int, int]  # detections of the checkpoint and of the file
    pixels: float  # the largest difference between boxes, in pixels of the network's input
    score: float  # the largest difference between scores
    num_unmatched: int  # detections without a counterpart, except where rounding decides
    aps: tuple[float, float] | None  # of the checkpoint and of the file; None if the set has no objects

    @property
    def faults(self) -> list[str]:
        """Returns descriptions of the differences that are too large."""
        faults = []
        if self.num_unmatched:
            faults.append(f"{counted(self.num_unmatched, 'detection')} without a counterpart")
        if self.pixels > MOST_PIXELS:
            faults.append(f"boxes differ by up to {self.pixels:.3g} px")
        if self.score > MOST_SCORE:
            faults.append(f"scores differ by up to {self.score:.2g}")
        if self.aps and abs(self.aps[0] - self.aps[1]) > MOST_AP:
            faults.append(f"AP is {self.aps[1]:.4f} instead of {self.aps[0]:.4f}")
        return faults


@torch.no_grad()
def compare(
    detect: Look,
    outputs_at: Callable[[Tensor, Tensor], tuple[Candidates, Candidates]],
    dataset: CocoDataset,
    batch_size: int,
    settings: DetectionSettings,
) -> Comparison:
    """Compares the checkpoint's detections (`detect`) with the file's (`outputs_at`) in all images of `dataset`.

    `outputs_at` returns the file's detections and its candidates. The detections that NMS selects from the candidates
    are compared as well.
    """
    annotations = dataset.annotations
    parts: tuple[list[Found], list[Found]] = ([], [])
    matches = [Match(0.0, 0.0, 0)]
    for batch in batches_of_set(dataset, LoaderSettings(batch_size), "Verification"):
        ours, theirs, of_candidates = (
            suppress(seen, batch.sizes, settings)
            for seen in (detect(batch.images, batch.sizes), *outputs_at(batch.images, batch.sizes))
        )
        for of_network, detections in zip(parts, (ours, theirs), strict=True):
            of_network.append(found_in_batch(detections, batch.scales, batch.rows.numpy()))
        for row in range(len(batch.rows)):
            matches += [match(_image(ours, row), _image(other, row), settings) for other in (theirs, of_candidates)]
    aps = None
    if has_objects(annotations):
        backend = installed_backends()[0]
        tables = [evaluate(annotations, found_in_set(of_network, annotations), backend) for of_network in parts]
        aps = tables[0].numbers[AP], tables[1].numbers[AP]
    pixels, scores, unmatched = zip(*matches, strict=True)
    num_ours, num_theirs = (sum(len(part.scores) for part in of_network) for of_network in parts)
    return Comparison(len(dataset), (num_ours, num_theirs), max(pixels), max(scores), sum(unmatched), aps)


class Match(NamedTuple):
    pixels: float  # the largest difference between boxes
    score: float  # the largest difference between scores
    num_unmatched: int


def match(ours: Detections, theirs: Detections, settings: DetectionSettings) -> Match:
    """Matches each network's detections in an image to the other network's nearest detections of the same class.

    The distance is the largest difference in any coordinate, plus the difference in score. A detection without a near
    counterpart is unmatched, but isn't counted if its score is so close to the cut-off that rounding decides whether it
    is kept.
    """
    pixels = score = 0.0
    num_unmatched = 0
    for one, other in ((ours, theirs), (theirs, ours)):
        if not len(one.scores):
            continue
        is_full = len(one.scores) == settings.max_detections
        sure = one.scores > (float(one.scores.min()) if is_full else settings.threshold) + MOST_SCORE
        if not len(other.scores):
            num_unmatched += int(sure.sum())
            continue
        apart = (one.boxes[:, None] - other.boxes).abs().amax(dim=2)  # [n, m]
        gaps = (one.scores[:, None] - other.scores).abs()
        is_other_class = one.labels[:, None] != other.labels
        nearest = (apart + gaps + 1e6 * is_other_class).argmin(dim=1)
        rows = torch.arange(len(nearest))
        is_matched = ~is_other_class[rows, nearest] & (apart[rows, nearest] < FAR) & (gaps[rows, nearest] < FAR_SCORE)
        num_unmatched += int((sure & ~is_matched).sum())
        if is_matched.any():
            pixels = max(pixels, float(apart[rows, nearest][is_matched].max()))
            score = max(score, float(gaps[rows, nearest][is_matched].max()))
    return Match(pixels, score, num_unmatched)


def _image(detections: Detections, row: int) -> Detections:
    """Returns the detections in one image, without the unused rows."""
    real = detections.labels[row] >= 0
    return Detections(*(part[row][real] for part in detections))

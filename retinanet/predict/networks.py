"""A trained network ready to detect: what looks at a batch, and what its file says of it."""

from pathlib import Path
from typing import NamedTuple

import torch

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint
from retinanet.coco.score_thresholds import USUAL_THRESHOLD, saved_threshold
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.evaluation.detect_set import fastest_form
from retinanet.evaluation.views import Look, look_with
from retinanet.runtime.device import choose_precision, find_device


class Trained(NamedTuple):
    """What the file says of its network."""

    class_names: list[str]
    category_ids: list[int]
    min_side: int
    max_side: int
    batch_size: int
    threshold: float = USUAL_THRESHOLD


class ReadyNetwork(NamedTuple):
    look: Look  # which finds all candidates above the threshold
    trained: Trained
    device: torch.device
    threshold: float
    detection: DetectionSettings = DEFAULT_DETECTION  # where none are asked for; without the threshold


def network_of_checkpoint(
    path: Path, device_name: str, precision_name: str, threshold: float | None, num_candidates: int
) -> ReadyNetwork:
    """The checkpoint's network, with its averaged weights if it has any. UserError where it can't be used.

    `threshold`: None is the one that its training has found.
    """
    device = find_device(device_name)
    checkpoint = load_checkpoint(path)
    trained = trained_of(checkpoint)
    threshold = trained.threshold if threshold is None else threshold
    precision = choose_precision(precision_name, device)
    model = build_model(checkpoint, path, averaged=True).to(device).eval()
    with torch.no_grad():
        network = fastest_form(model, device, precision, threshold)
    look = look_with(network, num_candidates, device=device, precision=precision)
    return ReadyNetwork(look, trained, device, threshold)


def trained_of(checkpoint: Checkpoint) -> Trained:
    """What a checkpoint says of its network."""
    return Trained(
        checkpoint.class_names,
        checkpoint.category_ids,
        checkpoint.min_side,
        checkpoint.max_side,
        checkpoint.batch_size,
        USUAL_THRESHOLD if checkpoint.score_threshold is None else saved_threshold(checkpoint.score_threshold),
    )

"""Yields each image's regions (boxes with scores by class) and detections, from fold detectors or a result file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from retinanet.checkpoints.checkpoint import build_model, load_checkpoint
from retinanet.coco.annotations import Annotations
from retinanet.coco.folder import VAL
from retinanet.coco.results import Found, load_results
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import load_set
from retinanet.evaluation.regions import ImageRegions, regions_of_set
from retinanet.runtime.device import choose_precision
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import FINAL
from retinanet.settings.train import TrainSettings

Seen = tuple[ImageRegions, Found]  # an image's regions, and the detections in it by descending score


def seen_by_folds(runs: Sequence[TrainSettings], annotations: Annotations) -> Iterator[Seen]:
    """Yields the regions and detections in each image, from the detector that was trained without the image's fold.

    Images are given as indices into the whole set, not into the fold.
    """
    order = np.argsort(annotations.image_ids)
    for fold, run in enumerate(runs):
        path = run.output.output_path / FINAL
        checkpoint, device = load_checkpoint(path), torch.device(run.machine.device)
        model = build_model(checkpoint, path, averaged=True).to(device)
        held_out, dataset = load_set(
            run.data.coco_path,
            VAL,
            min_side=run.data.min_side,
            max_side=run.data.max_side,
            max_pixels=run.machine.max_pixels,
            exif=run.data.exif,
            white_level=run.data.white_level,
        )
        images = order[np.searchsorted(annotations.image_ids[order], held_out.image_ids)]
        batches = regions_of_set(
            model,
            dataset,
            LoaderSettings(checkpoint.batch_size, run.machine.workers or 0, device),
            device=device,
            precision=choose_precision(run.machine.precision, device),
            detection=run.detection,
            title=f"Detection in fold {fold + 1}",
        )
        for regions, found in batches:
            yield from _by_image(
                [each._replace(image=int(images[each.image])) for each in regions],
                found._replace(images=images[found.images]),
            )


def seen_in_file(path: Path, annotations: Annotations) -> Iterator[Seen]:
    """Yields the regions and detections in each image, from a result file.

    Each detection is also a region, with a score for its class only. Raises UserError if the file doesn't belong to the
    set, or has no detections.
    """
    found = load_results(path, annotations)
    if not len(found.scores):
        raise UserError(f"{path}: has no detections, so it says nothing about labels. Choose another --results.")
    found = found.at(np.lexsort((-found.scores, found.images)))
    edges = np.searchsorted(found.images, np.arange(len(annotations.image_ids) + 1))
    for image, (start, stop) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        part = found.at(np.arange(start, stop))
        scores = part.scores[:, None] * (part.labels[:, None] == np.arange(len(annotations.class_names)))
        yield ImageRegions(image, part.boxes, scores), part


def _by_image(regions: Sequence[ImageRegions], found: Found) -> Iterator[Seen]:
    for each in regions:
        yield each, found.at(found.images == each.image)

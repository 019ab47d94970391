"""Panels of images with objects or detections to draw."""

import numpy as np

from retinanet.coco.annotations import owners_of
from retinanet.coco.boxes import boxes_of
from retinanet.data.batches import Sample
from retinanet.data.dataloader import TrainingBatches
from retinanet.data.dataset import CocoDataset
from retinanet.data.sampler import AspectRatioBasedSampler, Draw
from retinanet.evaluation.analysis import Analysis, is_taken
from retinanet.evaluation.compare import Comparison
from retinanet.reports.box_pictures import Panel
from retinanet.runtime.errors import UserError

MOST_SHOWN = 4  # images won, and as many lost


def chosen_objects_panel(title: str, dataset: CocoDataset, image: int, chosen: np.ndarray) -> Panel:
    """The image with its `chosen` [T] objects."""
    annotations = dataset.annotations
    shown = chosen & (owners_of(annotations) == image)
    return Panel(title, _pixels(dataset, image), annotations.boxes[shown], annotations.labels[shown], None)


def chosen_detections_panel(
    title: str, dataset: CocoDataset, image: int, analysis: Analysis, chosen: np.ndarray
) -> Panel:
    """The image with its `chosen` [D] detections and, dashed and named, all its objects."""
    annotations, found = dataset.annotations, analysis.found
    shown = chosen & (found.images == image)
    objects = (owners_of(annotations) == image) & ~annotations.crowds
    return Panel(
        title,
        _pixels(dataset, image),
        found.boxes[shown],
        found.labels[shown],
        found.scores[shown],
        outlines=annotations.boxes[objects],
        outline_labels=annotations.labels[objects],
    )


def no_pictures_line(dataset: CocoDataset) -> str | None:
    """Says which images of the set aren't there to be drawn; None if all are."""
    there, folder = dataset.images_there(), dataset.image_folder
    if there.all():
        return None
    if there.any():
        return f"The pictures leave out {(~there).sum()} of {len(there)} images, which are not in {folder}"
    return f"No pictures, as the images of {dataset.annotations.path} are not in {folder}"


def _pixels(dataset: CocoDataset, image: int) -> np.ndarray:
    return dataset.original(image).permute(1, 2, 0).numpy()


NUM_EPOCHS = 3


def draws_of_epochs(sampler: AspectRatioBasedSampler, indices: list[int]) -> list[dict[int, Draw]]:
    """For each of the first epochs, the batch of each image in `indices`."""
    wanted, epochs = set(indices), []
    for epoch in range(NUM_EPOCHS):
        sampler.start_at(epoch)
        epochs.append({index: draw for draw in sampler for index in wanted.intersection(draw.indices)})
    return epochs


def augmented_panel(batches: TrainingBatches, draw: Draw, index: int) -> Panel:
    """An image as the batch `draw` has it. UserError if it can't be read."""
    sample = batches.sample(draw.epoch, index, draw.side)
    if not isinstance(sample, Sample):
        raise UserError(sample.message)
    height, width = sample.image.shape[1:]
    side = batches.dataset.min_side if draw.side is None else draw.side
    boxes = boxes_of(sample.boxes.numpy().astype(float))
    labels = sample.labels.numpy()
    return Panel(
        title=f"epoch {draw.epoch}, side {side}: {height} x {width}",
        image=sample.image.permute(1, 2, 0).numpy(),
        boxes=boxes[labels >= 0],
        labels=labels[labels >= 0],
        scores=None,
        outlines=boxes[labels < 0],
    )


def comparison_panels(comparison: Comparison, a: Analysis, b: Analysis, dataset: CocoDataset) -> list[Panel]:
    """The images where B gains most, then where it loses most, each as A and B see it at their best thresholds.

    Images that aren't there are left out.
    """
    gains = np.where(dataset.images_there(), comparison.f1[1] - comparison.f1[0], 0)
    order = np.argsort(-gains, kind="stable")
    chosen = [*order[gains[order] > 0][:MOST_SHOWN], *order[gains[order] < 0][::-1][:MOST_SHOWN]]
    panels = []
    for image in chosen:
        verdict = "won" if gains[image] > 0 else "lost"
        name = dataset.annotations.file_name(image)
        for title, one, f1 in zip((f"{name}: A", f"B, {verdict}"), (a, b), comparison.f1, strict=True):
            panels.append(chosen_detections_panel(f"{title}: F1 {f1[image]:.2f}", dataset, image, one, is_taken(one)))
    return panels

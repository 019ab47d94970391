"""Draws images as a run trains on them: augmented and resized as in their batches."""

from typing import NamedTuple

from retinanet.coco.boxes import boxes_of
from retinanet.data.batches import Sample
from retinanet.data.dataloader import TrainingBatches
from retinanet.data.sampler import AspectRatioBasedSampler, Draw
from retinanet.reports.box_pictures import Panel
from retinanet.runtime.errors import UserError

NUM_EPOCHS = 3


class Place(NamedTuple):
    """Identifies an image or a tile by its place in a training batch."""

    draw: Draw
    number: int  # in the batch


def places_of_epochs(sampler: AspectRatioBasedSampler, images: list[int]) -> list[dict[int, Place]]:
    """Returns, for each of the first NUM_EPOCHS epochs, a dict from each of `images` to its place in the epoch.

    In a run on tiles, an image is represented by its first tile in the epoch or, if none of its tiles occurs there, by
    the whole image.
    """
    wanted, epochs = set(images), []
    for epoch in range(NUM_EPOCHS):
        sampler.start_at(epoch)
        wholes: dict[int, Place] = {}
        tiles: dict[int, Place] = {}
        for draw in sampler:
            for number, index in enumerate(draw.indices):
                if index in wanted:
                    wholes[index] = Place(draw, number)
                elif draw.windows and draw.windows[number].row in wanted:
                    tiles.setdefault(draw.windows[number].row, Place(draw, number))
        epochs.append(wholes | tiles)
    return epochs


def augmented_panel(batches: TrainingBatches, place: Place) -> Panel:
    """Returns a panel of an image or a tile as augmented in its batch. Raises UserError if the image can't be read."""
    draw, number = place
    window = draw.windows[number] if draw.windows else None
    sample = batches.sample(draw.epoch, draw.indices[number], draw.side, window)
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

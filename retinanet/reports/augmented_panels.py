"""Draws images as a run trains on them: augmented, at the size of their batch."""

from retinanet.coco.boxes import boxes_of
from retinanet.data.batches import Sample
from retinanet.data.dataloader import TrainingBatches
from retinanet.data.sampler import AspectRatioBasedSampler, Draw
from retinanet.reports.box_pictures import Panel
from retinanet.runtime.errors import UserError

NUM_EPOCHS = 3


def draws_of_epochs(sampler: AspectRatioBasedSampler, indices: list[int]) -> list[dict[int, Draw]]:
    """Returns, for each of the first NUM_EPOCHS epochs, a dict from each image in `indices` to its batch."""
    wanted, epochs = set(indices), []
    for epoch in range(NUM_EPOCHS):
        sampler.start_at(epoch)
        epochs.append({index: draw for draw in sampler for index in wanted.intersection(draw.indices)})
    return epochs


def augmented_panel(batches: TrainingBatches, draw: Draw, index: int) -> Panel:
    """Returns a panel of the image `index` as augmented in the batch `draw`. Raises UserError if it can't be read."""
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

"""Pictures of training images as training sees them."""

from retinanet.errors import UserError
from retinanet.loaders import TrainingBatches
from retinanet.plots import Panel
from retinanet.samplers import AspectRatioBasedSampler, Draw
from retinanet.structures import Sample

NUM_EPOCHS = 3


def draws_of_epochs(sampler: AspectRatioBasedSampler, indices: list[int]) -> list[dict[int, Draw]]:
    """For each of the first epochs, the batches of the images `indices`."""
    wanted, epochs = set(indices), []
    for epoch in range(NUM_EPOCHS):
        sampler.start_at(epoch)
        epochs.append({index: draw for draw in sampler for index in wanted.intersection(draw.indices)})
    return epochs


def augmented_panel(batches: TrainingBatches, draw: Draw, index: int) -> Panel:
    """An image as the batch `draw` has it. UserError where it can't be read."""
    sample = batches.sample(draw.epoch, index, draw.side)
    if not isinstance(sample, Sample):
        raise UserError(sample.message)
    height, width = sample.image.shape[1:]
    side = batches.dataset.min_side if draw.side is None else draw.side
    boxes = sample.boxes.numpy().astype(float)
    boxes[:, 2:] -= boxes[:, :2]
    labels = sample.labels.numpy()
    return Panel(
        title=f"epoch {draw.epoch}, side {side}: {height} x {width}",
        image=sample.image.permute(1, 2, 0).numpy(),
        boxes=boxes[labels >= 0],
        labels=labels[labels >= 0],
        scores=None,
        outlines=boxes[labels < 0],
    )

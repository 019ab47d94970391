"""Steps whose loss or gradient was not finite, and which therefore left the weights as they were."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.structures import Targets


class Step(NamedTuple):
    """What is to be told of a step if it proves to be one of them."""

    epoch: int
    iteration: int
    learning_rate: float
    image_ids: list[Tensor]  # [B] of each batch; not the images, which would stay in memory
    targets: list[Targets]  # of each batch
    numbers: Tensor  # [4]: 1 if skipped, classification loss, regression loss, gradient norm


class SkippedSteps:
    """Counts them. What a GPU says of a step is read only when somebody looks, as reading waits for it."""

    def __init__(self, max_in_row: int) -> None:
        self.max_in_row = max_in_row
        self.total, self.in_row = 0, 0
        self.too_many = False  # in a row, at any time
        self.unread: list[Step] = []

    def add(self, step: Step) -> None:
        self.unread.append(step)

    def look(self) -> list[dict[str, Any]]:
        """What there is to tell of the steps skipped since the last look, as JSON can hold it."""
        steps, self.unread = self.unread, []
        if not steps:
            return []
        told = []
        for step, numbers in zip(steps, torch.stack([step.numbers for step in steps]).tolist(), strict=True):
            self.in_row = self.in_row + 1 if numbers[0] else 0
            self.too_many |= self.in_row >= self.max_in_row
            if numbers[0]:
                self.total += 1
                told.append(_told(step, numbers))
        return told


def _told(step: Step, numbers: list[float]) -> dict[str, Any]:
    images = []
    for image_ids, targets in zip(step.image_ids, step.targets, strict=True):
        batch = zip(image_ids.tolist(), targets.boxes.tolist(), targets.labels.tolist(), strict=True)
        for image_id, boxes, labels in batch:
            objects = [(box, label) for box, label in zip(boxes, labels, strict=True) if label >= 0]
            images.append(
                {
                    "image_id": image_id,
                    "boxes": [box for box, _ in objects],  # (x1, y1, x2, y2) in pixels of the network's input
                    "labels": [label for _, label in objects],
                }
            )
    return {
        "epoch": step.epoch,
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        # As text: JSON has no NaN.
        **dict(zip(("classification_loss", "regression_loss", "gradient_norm"), map(str, numbers[1:]), strict=True)),
        "images": images,
    }

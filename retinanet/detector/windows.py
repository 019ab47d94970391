"""Runs the regression head only where needed: around foreground anchors in training, around high scores in detection.

Only a few of the pyramid's cells are needed, so on a CPU, this saves most of the head's work, forward and backward. (On
a GPU, the host would have to wait to learn which cells these are.)
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.detector.detect import lowest_class_score
from retinanet.detector.model import TOWER_CONVOLUTIONS, Head, RetinaNet
from retinanet.detector.structures import Predictions

REACH = TOWER_CONVOLUTIONS + 1  # a cell's deltas depend on this many cells on each side, one per 3x3 convolution


class SparseNetwork:
    """Predicts like `model`, but with deltas only around anchors that may score above `threshold`, and 0 elsewhere.

    Detections that score above `threshold` are the same as with `model`.
    """

    def __init__(self, model: RetinaNet, threshold: float) -> None:
        self.model, self.architecture = model, model.architecture
        least = lowest_class_score(threshold, model.architecture.iou_branch)
        self.least_logit = math.log(least / (1 - least)) - 1e-3 if 0 < least < 1 else -math.inf

    def __call__(self, images: Tensor) -> Predictions:
        levels, logits = _levels_and_logits(self.model, images)
        best = logits.amax(dim=2).float()  # in half precision, the limit would be rounded, too, perhaps upwards
        rows = (best > self.least_logit).flatten().nonzero().squeeze(1)
        return Predictions(logits, deltas_around(self.model.regression_head, levels, rows, split=True))


def can_be_sparse(model: RetinaNet) -> bool:
    """Returns True if the regression head can run in windows: it has neither group normalisation nor a level code."""
    return isinstance(model, RetinaNet) and not model.architecture.level_code and model.architecture.head_norm == "none"


def predictions_around(model: RetinaNet, images: Tensor, rows: Tensor) -> Predictions:
    """Predicts like `model`, but with deltas only around the anchors `rows` (indices into B * A), and 0 elsewhere."""
    levels, logits = _levels_and_logits(model, images)
    return Predictions(logits, deltas_around(model.regression_head, levels, rows))


def _levels_and_logits(model: RetinaNet, images: Tensor) -> tuple[list[Tensor], Tensor]:
    levels = model.levels(images)
    return levels, torch.cat([model.classification_head(level) for level in levels], dim=1)


def deltas_around(head: Head, levels: list[Tensor], rows: Tensor, *, split: bool = False) -> Tensor:
    """Returns deltas [B, A, 4 or 5]: the output of `head` around anchors `rows` (indices into B * A), and 0 elsewhere.

    `levels` are the pyramid levels, each [B, channels, h, w]. The head runs in one window per image and level or, with
    `split`, per cluster of `rows`. It always runs at the last anchor of the first image, too, because the optimiser
    would skip a head without gradients.
    """
    num_images, num_anchors = len(levels[0]), head.num_anchors
    shapes = [level.shape[2:] for level in levels]
    needed = torch.zeros(num_images, sum(num_anchors * h * w for h, w in shapes), dtype=torch.bool)
    needed.view(-1)[rows] = True
    needed[0, -1] = True  # at least one anchor, because the optimiser would skip a head without gradients

    parts = []
    by_level = needed.split([num_anchors * h * w for h, w in shapes], dim=1)
    for level, (height, width), level_needed in zip(levels, shapes, by_level, strict=True):
        cells = level_needed.view(num_images, height, width, num_anchors).any(dim=3)
        deltas = level.new_zeros(num_images, height, width, num_anchors * head.num_outputs)
        for image in cells.any(dim=2).any(dim=1).nonzero().squeeze(1).tolist():
            for window in windows_of(cells[image]) if split else [_window(cells[image])]:
                deltas[image, *window] = _outputs_in(head, level[image : image + 1], *window).to(deltas.dtype)
        parts.append(deltas.view(num_images, -1, head.num_outputs))
    return torch.cat(parts, dim=1)


def _window(cells: Tensor) -> tuple[slice, slice]:
    """Returns the smallest window (rows, columns) that contains every cell marked in `cells`, bool [h, w]."""
    rows, columns = (cells.any(dim=axis).nonzero().squeeze(1).tolist() for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def windows_of(cells: Tensor) -> list[tuple[slice, slice]]:
    """Returns windows that together contain every cell marked in `cells`, bool [h, w], split where that saves work."""
    rows, columns = _window(cells)
    for axis, place in enumerate((rows, columns)):
        taken = cells[rows, columns].any(dim=1 - axis).nonzero().squeeze(1)
        gaps = taken.diff()
        if len(gaps) and int(gaps.max()) > 2 * REACH:  # after a split, each window grows by REACH towards the other
            cut = place.start + int(taken[gaps.argmax()]) + 1
            first, second = cells.clone(), cells.clone()
            first.narrow(axis, cut, cells.shape[axis] - cut).zero_()
            second.narrow(axis, 0, cut).zero_()
            return [*windows_of(first), *windows_of(second)]
    return [(rows, columns)]


def _outputs_in(head: Head, level: Tensor, rows: slice, columns: slice) -> Tensor:
    """Returns the head's output in a window of `level` [1, channels, h, w]: [rows, columns, outputs per cell].

    The input is the window plus the cells around it that the output depends on, and each convolution removes one cell
    on each side. At the level's border, the convolutions pad with zeros instead, as they do on a whole level.
    """
    height, width = level.shape[2:]
    reach = REACH
    features = level[
        :,
        :,
        max(rows.start - reach, 0) : rows.stop + reach,
        max(columns.start - reach, 0) : columns.stop + reach,
    ]
    for layer in (*head.tower.children(), head.output):
        if isinstance(layer, nn.Conv2d):
            borders = (
                columns.start - reach < 0,
                columns.stop + reach > width,
                rows.start - reach < 0,
                rows.stop + reach > height,
            )
            features = F.conv2d(F.pad(features, [int(border) for border in borders]), layer.weight, layer.bias)
            reach -= 1
        else:
            features = layer(features)
    return features[0].permute(1, 2, 0)

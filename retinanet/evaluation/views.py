"""Runs test-time augmentation: merges the candidates from several views of an image, in pixels of the first view."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.data.batches import Batch
from retinanet.data.transforms import mirrored_boxes
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import clip, per_coordinate
from retinanet.detector.detect import find_candidates
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Candidates
from retinanet.detector.windows import SparseNetwork
from retinanet.runtime.device import autocast
from retinanet.runtime.printable import counted
from retinanet.runtime.resource_errors import DETECTION_ADVICE, memory_explained, named
from retinanet.settings.shared import Tiles


class Views(NamedTuple):
    """Describes the views of each image: one per entry of `sides` and, with `flip`, also the mirror image of each.

    With `tiles`, the same views of each tile of a large image are added.
    """

    sides: Sequence[tuple[int, int]] | None = None  # (shorter side, limit on the longer); None: the dataset's own
    flip: bool = False
    tiles: Tiles | None = None

    @property
    def num_sides(self) -> int:
        return 1 if self.sides is None else len(self.sides)


ONE_VIEW = Views()
Look = Callable[[Tensor, Tensor], Candidates]  # of images [B, 3, H, W] and their unpadded sizes [B, 2]


class MergedViews(NamedTuple):
    """Holds the candidates from all views of a batch's images; boxes, sizes and scales refer to the first view."""

    candidates: Candidates  # N is the sum over the views
    sizes: Tensor  # int64 [B, 2]
    scales: Tensor  # float32 [B, 2]
    rows: Tensor  # int64 [B], indices of the images in the set


def look_with(
    model: RetinaNet | SparseNetwork, num_candidates: int, *, device: torch.device, precision: torch.dtype
) -> Look:
    """Returns a Look that runs `model` and keeps the `num_candidates` top-scoring candidates of each image."""

    def look(images: Tensor, sizes: Tensor) -> Candidates:
        anchors = anchors_for(*images.shape[2:], device, model.architecture.anchors)
        with autocast(device, precision):
            predictions = model(images)
        return find_candidates(predictions, anchors, sizes, num_candidates)

    return look


@torch.no_grad()
def merged_views(look: Look, batches: Iterable[Batch], views: Views) -> Iterator[MergedViews]:
    """Yields the merged candidates of each group of `views.num_sides` successive batches.

    A group holds the same images in several sizes. The candidates of different views don't affect each other before
    NMS. This function never waits for the device.
    """
    candidates_of_views: list[Candidates] = []
    for batch in batches:
        if not candidates_of_views:
            sizes, scales, rows = batch.sizes, batch.scales, batch.rows
        with memory_explained(named(batch.images), DETECTION_ADVICE):
            for is_mirrored in (False, True) if views.flip else (False,):
                images = mirrored(batch.images, batch.sizes) if is_mirrored else batch.images
                boxes, scores, labels = look(images, batch.sizes)
                if is_mirrored:
                    boxes = mirrored_boxes(boxes, batch.sizes[:, 1:])
                if batch.sizes is not sizes:
                    boxes = resized_boxes(boxes, batch.sizes, sizes)
                candidates_of_views.append(Candidates(boxes, scores, labels))
        if len(candidates_of_views) == views.num_sides * (1 + views.flip):
            merged = Candidates(*(torch.cat(parts, dim=1) for parts in zip(*candidates_of_views, strict=True)))
            candidates_of_views = []
            yield MergedViews(merged, sizes, scales, rows)


def mirrored(images: Tensor, sizes: Tensor) -> Tensor:
    """Mirrors each of `images` [B, 3, H, W] left to right within its own width, so that padding stays on the right.

    `sizes` [B, 2] are the sizes of the images without padding.
    """
    columns = torch.arange(images.shape[3], device=images.device)  # [W]
    opposite = sizes[:, 1:] - 1 - columns  # [B, W], negative in the padding
    source = torch.where(opposite >= 0, opposite, columns)
    return images.gather(3, source[:, None, None].expand_as(images))


def resized_boxes(boxes: Tensor, old_sizes: Tensor, sizes: Tensor) -> Tensor:
    """Scales `boxes` [B, N, 4] from images of `old_sizes` [B, 2] to images of `sizes` [B, 2], each axis separately."""
    return clip(boxes * per_coordinate(sizes / old_sizes)[:, None], sizes)  # rounding may carry a box past the border


def views_line(sides: Sequence[int], flip_test: bool) -> str:
    """Returns the log line that lists the views of test-time augmentation: their shorter sides and mirroring."""
    listed = f"side{'s' if len(sides) > 1 else ''} {', '.join(map(str, sides))}"
    mirrored = f", {'each ' if len(sides) > 1 else ''}mirrored too" if flip_test else ""
    return f"Views: {listed}{mirrored}: {counted(len(sides) * (1 + flip_test), 'view')} of each image"

"""Detects objects in loaded images and, optionally, in their tiles, with one NMS over all candidates of an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.coco.boxes import boxes_of
from retinanet.coco.results import Found, joined
from retinanet.data.batches import Batch, Sample, collate
from retinanet.data.device_feed import on_device
from retinanet.data.sampler import batches_of_equal_shape
from retinanet.data.tiles import cut, tile_corners
from retinanet.data.transforms import padded_sizes, resize, resized_sizes
from retinanet.detector.boxes import per_coordinate
from retinanet.detector.detect import suppress
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates, Detections
from retinanet.evaluation.views import Look, Views, merged_views
from retinanet.settings.shared import Tiles

# A box this close to an inner edge of its tile may belong to an object that is cut off there. EDGE is a fraction of the
# tile's side, EDGE_OF_BOX of the box's side.
EDGE, EDGE_OF_BOX = 0.01, 0.1


class Looks(NamedTuple):
    """Holds the views of each image, and the settings that select its detections."""

    views: Views  # with explicit sides: the network's own, or the sides for test-time augmentation
    detection: DetectionSettings
    batch_size: int


class Merged(NamedTuple):
    """Holds the candidates from all views of one image."""

    candidates: Candidates  # [1, N], in pixels of the first view
    size: Tensor  # int64 [1, 2], of the first view
    scale: Tensor  # float32 [1, 2], of the first view


def detect_images(look: Look, images: Sequence[Tensor], looks: Looks, device: torch.device) -> Found:
    """Returns the detections in uint8 `images` [3, h, w], by image and descending score.

    Only images of equal padded shape share a batch, so that the detections are the same as in test.py.
    """
    merged = look_at(look, images, looks, device)
    if looks.views.tiles:
        merged = [
            with_tiles(look, image, whole, looks, looks.views.tiles, device)
            for image, whole in zip(images, merged, strict=True)
        ]
    parts = []
    for index, image_merged in enumerate(merged):
        detections = suppress(image_merged.candidates, image_merged.size, looks.detection)
        parts.append(found_in_batch(detections, image_merged.scale, np.array([index])))
    return joined(parts)


def look_at(look: Look, images: Sequence[Tensor], looks: Looks, device: torch.device) -> list[Merged]:
    """Returns the merged candidates from all views of each image."""
    assert looks.views.sides is not None
    originals = np.array([image.shape[1:] for image in images], np.int64).reshape(-1, 2)
    sizes = [resized_sizes(originals, *sides) for sides in looks.views.sides]
    shapes = np.concatenate([padded_sizes(side_sizes) for side_sizes in sizes], axis=1)
    merged: dict[int, Merged] = {}
    for rows in batches_of_equal_shape(shapes, looks.batch_size):
        batches = [_batch(images, rows, side_sizes) for side_sizes in sizes]
        for candidates, size, scale, _ in merged_views(look, on_device(batches, device), looks.views):
            for place, row in enumerate(rows):
                of_image = slice(place, place + 1)
                merged[row] = Merged(
                    Candidates(*(part[of_image] for part in candidates)), size[of_image], scale[of_image]
                )
    return [merged[row] for row in range(len(images))]


def _batch(images: Sequence[Tensor], rows: Sequence[int], sizes: np.ndarray) -> Batch:
    """Returns a batch of the images selected by `rows`, resized to their entries in `sizes` [N, 2]."""
    samples = []
    for row in rows:
        size = sizes[row].tolist()
        scale = torch.tensor([new / old for new, old in zip(size, images[row].shape[1:], strict=True)])
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        samples.append(Sample(resize(images[row], size), *nothing, scale, row))
    return collate(samples)


def with_tiles(look: Look, image: Tensor, whole: Merged, looks: Looks, tiles: Tiles, device: torch.device) -> Merged:
    """Returns the candidates from the whole image and from its tiles, in pixels of the image."""
    size = image.shape[1:]
    corners = tile_corners(size, tiles)
    tile_candidates = look_at(look, [cut(image, corner, tiles) for corner in corners], looks, device)
    parts = [_likely(moved(whole.candidates, whole.scale[0], (0, 0)), looks)]
    for corner, merged in zip(corners, tile_candidates, strict=True):
        likely = _likely(moved(merged.candidates, merged.scale[0], corner), looks)
        is_whole = without_cut_off(likely.boxes[0], corner, tiles, size)
        parts.append(Candidates(*(part[:, is_whole] for part in likely)))
    together = Candidates(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))
    return Merged(together, whole.size.new_tensor([list(size)]), torch.ones_like(whole.scale))


def _likely(candidates: Candidates, looks: Looks) -> Candidates:
    """Drops candidates at or below the threshold, because those of a hundred tiles wouldn't all fit in memory."""
    rows = candidates.scores[0] > looks.detection.threshold
    return Candidates(*(part[:, rows] for part in candidates))


def without_cut_off(boxes: Tensor, corner: tuple[int, int], tiles: Tiles, size: Sequence[int]) -> Tensor:
    """Returns a mask, bool [N], of the `boxes` [N, 4] that don't reach an inner edge of their tile.

    The boxes are in pixels of the image. An inner edge is one that isn't on the image's border. A box counts as
    reaching an edge if it ends close to that edge, because predicted boxes are inexact, and large boxes more so. An
    object that is cut off at such an edge is contained in full in a neighbouring tile or, if it is larger than the
    overlap, in the whole image.
    """
    (height, width), (top, left) = size, corner
    bottom, right = min(top + tiles.side, height), min(left + tiles.side, width)
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    # With a margin above a quarter of the overlap, small objects might be whole in no tile.
    least, most = max(1.0, EDGE * tiles.side), tiles.overlap * tiles.side / 4
    margin_x, margin_y = (torch.clamp(EDGE_OF_BOX * side, least, most) for side in (x2 - x1, y2 - y1))
    inside = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for is_inner, far in (
        (left > 0, x1 > left + margin_x),
        (top > 0, y1 > top + margin_y),
        (right < width, x2 < right - margin_x),
        (bottom < height, y2 < bottom - margin_y),
    ):
        if is_inner:
            inside &= far
    return inside


def moved(candidates: Candidates, scale: Tensor, corner: tuple[int, int]) -> Candidates:
    """Converts the candidates [1, N] of the tile at `corner` to pixels of the image.

    `scale` holds the factors (vertical, horizontal) by which the tile was resized.
    """
    top, left = corner
    boxes = candidates.boxes / scale.flip(0).repeat(2) + candidates.boxes.new_tensor([left, top, left, top])
    return candidates._replace(boxes=boxes)


def found_in_batch(detections: Detections, scales: Tensor, images: np.ndarray) -> Found:
    """Converts a batch's detections to COCO boxes, (left, top, width, height) in pixels of the original images.

    `scales` [B, 2] are the batch's scales, and `images` [B] the indices of its images in the set.
    """
    boxes = detections.boxes.double() / per_coordinate(scales.double())[:, None]  # [B, K, 4]
    labels = detections.labels.cpu().numpy()  # [B, K]
    of_images = np.repeat(images[:, None], labels.shape[1], axis=1)
    found = Found(of_images, labels, detections.scores.double().cpu().numpy(), boxes_of(boxes.cpu().numpy()))
    return found.at(labels >= 0)

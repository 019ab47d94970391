"""Measures how well the sides of boxes coincide with edges in a picture."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

LONGER_SIDE = 256  # of the grey picture in which edges are measured, in pixels
# Removes noise and fine texture, which aren't outlines of objects, and keeps edges. In photographs, this raises z (see
# box_fit) by a fifth.
BLUR = ImageFilter.BoxBlur(1)
SLACK = 0.03  # how far a side may be from its edge, as a fraction of the box, but at least a pixel
STRONG = 4.0  # times the mean gradient; stronger edges count as this, or a few would outweigh all others
OUTSIDE = 0.02  # a side is outside, not just rounded, if it is further out than this fraction of the picture
LEAST_SIDES = 2  # a box is scored only if at least this many sides are left; see scores_of_boxes
STRETCH = 16  # pixels; edges are lines, so gradients agree over such a length, unlike the gradients of noise


class Edges(NamedTuple):
    """Cumulative sums of a grey picture's gradients, along the lines that the sides of boxes can lie on.

    The picture is [h, w]. Its gradients are divided by their mean and capped at STRONG. A vertical side between the
    columns c and c + 1, from row a to row b - 1, has the sum down[b, c] - down[a, c].
    """

    down: np.ndarray  # float32 [h + 1, w - 1], of the differences between neighbours in x
    right: np.ndarray  # float32 [w + 1, h - 1], of the differences between neighbours in y

    @property
    def size(self) -> tuple[int, int]:
        """Returns the (height, width) of the grey picture."""
        return len(self.down) - 1, len(self.right) - 1


def edges_of(image: np.ndarray) -> Edges:
    """Returns the edges of `image`, which is uint8 [height, width, 3]."""
    height, width = image.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    # Reducing by whole numbers first is several times as fast, and as good for edges of a pixel or more.
    grey = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(grey.filter(BLUR), np.float32)
    across, below = np.abs(np.diff(pixels, axis=1)), np.abs(np.diff(pixels, axis=0)).T
    mean = max((float(across.mean()) + float(below.mean())) / 2, 1e-6)  # a picture of one colour has no edges
    return Edges(*(_sums(np.minimum(gradients / mean, STRONG)) for gradients in (across, below)))


def scores_of_boxes(edges: Edges, corners: np.ndarray) -> np.ndarray:
    """Returns the mean gradient across the sides of each box: float32 [n].

    Gradients are scaled so that their mean over the whole picture is about 1.

    `corners` [n, 4] are (x1, y1, x2, y2) as fractions of the picture. Each side is measured inside the picture, at the
    nearby position with the largest mean gradient. A side outside the picture counts as having no gradient: boxes drawn
    by people and tools end at the border, so a box that extends beyond its picture was probably misread. A box with
    zero area scores 0. A side on the border, beyond which an object may continue, is left out; the score is NaN if
    fewer than LEAST_SIDES are left.
    """
    height, width = edges.size
    x1, y1, x2, y2 = (corners * [width, height, width, height]).T
    sides = np.concatenate(
        [
            _means(edges.down, np.stack([x1, x2]), y1, y2, x2 - x1),
            _means(edges.right, np.stack([y1, y2]), x1, x2, y2 - y1),
        ]
    )  # [4, n]
    is_counted = ~np.isnan(sides)
    counts = is_counted.sum(axis=0)
    sums = np.where(is_counted, sides, 0).sum(axis=0)
    scores = np.where(counts >= LEAST_SIDES, sums / np.maximum(counts, 1), np.nan)
    return np.where((x2 > x1) & (y2 > y1), scores, 0).astype(np.float32)


def straightness(edges: Edges) -> float:
    """Averages gradients along short lines; returns the means' standard deviation: about 0.2 for noise, or higher."""
    means = [
        (sums[STRETCH :: STRETCH // 2] - sums[: -STRETCH : STRETCH // 2]).ravel() / STRETCH
        for sums in edges
        if len(sums) > STRETCH
    ]
    return float(np.concatenate(means).std()) if means else 0.0


def _sums(gradients: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(gradients) + 1, gradients.shape[1]), np.float32)
    np.cumsum(gradients, axis=0, out=sums[1:])
    return sums


def _means(
    sums: np.ndarray, places: np.ndarray, starts: np.ndarray, ends: np.ndarray, extents: np.ndarray
) -> np.ndarray:
    """Returns the largest mean gradient near each line at `places` [2, n], from `starts` to `ends` [n]: [2, n].

    A line may be moved by up to SLACK times the extent of its box (`extents` [n]), or by a pixel if that is more. Lines
    on the border give NaN, and lines outside give 0.
    """
    last, num_lines = len(sums) - 1, sums.shape[1]
    first = np.rint(starts).clip(0, last).astype(np.int32)
    stop = np.rint(ends).clip(0, last).astype(np.int32)
    first = np.where(first == stop, np.maximum(first - 1, 0), first)  # a short side still covers a pixel
    lines = np.rint(places).clip(-1, num_lines + 2).astype(np.int32) - 1
    is_inside = (lines >= 0) & (lines < num_lines)
    margin = OUTSIDE * (num_lines + 1)
    is_outside = (places < -margin) | (places > num_lines + 1 + margin) | (starts >= last) | (ends <= 0)
    reach = np.maximum(1, SLACK * extents).astype(np.int32)  # [n]
    offsets = np.arange(-reach.max(initial=1), reach.max(initial=1) + 1, dtype=np.int32)
    tried = lines[..., None] + offsets  # [2, n, offsets]
    is_tried = (np.abs(offsets) <= reach[:, None]) & (tried >= 0) & (tried < num_lines)
    tried = tried.clip(0, num_lines - 1)
    flat = sums.ravel()
    totals = flat.take(stop[:, None] * num_lines + tried) - flat.take(first[:, None] * num_lines + tried)
    best = np.where(is_tried, totals, 0).max(axis=-1) / np.maximum(stop - first, 1)
    return np.where(is_outside, 0, np.where(is_inside, best, np.nan))

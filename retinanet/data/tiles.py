"""Cuts images into tiles: evenly spaced ones for detection, and a grid that shifts every epoch for training."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from retinanet.coco.boxes import seen_in
from retinanet.data.dataset import CocoDataset
from retinanet.data.sampler import Shown, class_factors, whole_sum
from retinanet.settings.shared import Tiles

TILE_STREAM = 3  # separates an epoch's grids from other draws of the same seed and epoch; not 0, which NumPy ignores
EMPTY_ONE_IN = 4  # an epoch shows one in this many of the tiles without an object to learn
OBJECTS_AT_A_TIME = 2**16  # objects processed at once; handling all of them together would take much memory


def tile_corners(size: Sequence[int], tiles: Tiles) -> list[tuple[int, int]]:
    """Returns the (top, left) corners of the tiles that cover an image of `size`; [] for one no larger than a tile.

    The tiles are evenly spaced. The last tile of each row and column ends at the image's border.
    """
    if max(size) <= tiles.side:
        return []
    tops, lefts = (_starts(length, tiles) for length in size)
    return [(top, left) for top in tops for left in lefts]


def _starts(length: int, tiles: Tiles) -> list[int]:
    """Returns the starts of tiles along a side of `length`: evenly spaced, overlapping by at least `tiles.overlap`."""
    count = int(_counts(np.array(length), tiles))
    return [round(number * (length - tiles.side) / max(1, count - 1)) for number in range(count)]


def _counts(lengths: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Returns the smallest numbers of tiles that cover sides of the given `lengths`."""
    return -(-(lengths - tiles.side).clip(min=0) // tiles.step) + 1


def cut(image: Tensor, corner: tuple[int, int], tiles: Tiles) -> Tensor:
    """Returns the tile [3, h, w] of `image` at `corner`."""
    top, left = corner
    return image[:, top : top + tiles.side, left : left + tiles.side]


class Grids(NamedTuple):
    """Describes the tiles of all images of a set in one epoch.

    Each image larger than a tile gets the fewest tiles that cover it with at least the requested overlap. Along each
    side, tile k starts at k * step - offset, clipped so that it stays inside the image. The step is the tile's side
    without the overlap, and clipping only adds to the overlap.
    """

    tiles: Tiles
    sizes: np.ndarray  # int64 [N, 2], the images' (height, width)
    offsets: np.ndarray  # int64 [N, 2], small enough for the last tile to reach the end of the image

    @property
    def counts(self) -> np.ndarray:
        """Returns the number of tiles along each image's height and width: int64 [N, 2]; 0 for images without tiles."""
        return _counts(self.sizes, self.tiles) * (self.sizes > self.tiles.side).any(axis=1, keepdims=True)

    def starts(self, images: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns the (top, left) corners, int64 [n, 2], of tiles at (row, column) `places` [n, 2] in `images` [n]."""
        room = (self.sizes[images] - self.tiles.side).clip(min=0)
        return (places * self.tiles.step - self.offsets[images]).clip(0, room)

    def sizes_of_tiles(self, images: np.ndarray) -> np.ndarray:
        """Returns the (height, width) of the tiles of `images` [n]: int64 [n, 2]."""
        return np.minimum(self.sizes[images], self.tiles.side)


def grids_of(sizes: np.ndarray, tiles: Tiles, seed: int, epoch: int) -> Grids:
    """Returns the tiles of images with these `sizes` [N, 2]; the offsets depend on (seed, epoch) and the image."""
    sizes = sizes.astype(np.int64)
    slack = (_counts(sizes, tiles) - 1) * tiles.step - (sizes - tiles.side).clip(min=0)
    draws = np.random.default_rng([seed, epoch, TILE_STREAM]).random(sizes.shape)
    return Grids(tiles, sizes, (draws * (slack + 1)).astype(np.int64))


class Tiled(NamedTuple):
    """Lists the tiles of an epoch, and the value of each.

    A tile's value is the largest repeat factor of its targets (1 in a run without repeats), or 0 if it has no targets.
    """

    windows: np.ndarray  # int64 [T, 5], see Window
    values: np.ndarray  # float64 [T]


class TileTargets(NamedTuple):
    """Lists which objects are targets in which tiles; an object may be in several tiles, each showing a part of it."""

    objects: np.ndarray  # int64 [n], their indices among the objects
    tiles: np.ndarray  # int64 [n], the indices of the tiles among all tiles
    sizes: np.ndarray  # int64 [n, 2], (height, width) of the tiles
    parts: np.ndarray  # float64 [n, 4], the corners of the parts that the tiles show, in the tiles' pixels


def windows_of(grids: Grids) -> np.ndarray:
    """Returns the windows, int64 [T, 5], of all tiles: image by image, and row by row."""
    num_tiles = grids.counts.prod(axis=1)
    rows = np.repeat(np.arange(len(num_tiles)), num_tiles)
    number = np.arange(len(rows)) - _firsts(num_tiles)[rows]
    places = np.stack(np.divmod(number, grids.counts[rows, 1].clip(min=1)), axis=1)
    return np.concatenate([rows[:, None], grids.starts(rows, places), grids.sizes_of_tiles(rows)], axis=1)


def tile_targets(grids: Grids, images: np.ndarray, corners: np.ndarray, min_visible: float) -> Iterator[TileTargets]:
    """Yields, in chunks, each tile's targets: the objects of which the tile shows at least the fraction `min_visible`.

    `corners` [n, 4] are the boxes of the objects, in pixels of their `images` [n].
    """
    counts = grids.counts
    firsts = _firsts(counts.prod(axis=1))
    for start in range(0, len(images), OBJECTS_AT_A_TIME):
        chunk = slice(start, start + OBJECTS_AT_A_TIME)
        which, places = _near_places(grids, images[chunk], corners[chunk])
        rows = images[chunk][which]
        sizes = grids.sizes_of_tiles(rows)
        windows = np.concatenate([grids.starts(rows, places), sizes], axis=1)
        parts, shares = seen_in(corners[chunk][which], windows)
        tiles = firsts[rows] + places[:, 0] * counts[rows, 1] + places[:, 1]
        is_target = shares >= min_visible
        yield TileTargets(start + which[is_target], tiles[is_target], sizes[is_target], parts[is_target])


def parts_in_tiles(corners: np.ndarray, sizes: np.ndarray, tiles: Tiles, min_visible: float) -> Iterator[TileTargets]:
    """Yields the targets in the tiles of one epoch. `sizes` [n, 2] are the sizes of the objects' images."""
    return tile_targets(grids_of(sizes, tiles, seed=0, epoch=0), np.arange(len(corners)), corners, min_visible)


def _firsts(counts: np.ndarray) -> np.ndarray:
    """Returns the index of each group's first element, for consecutive groups of `counts` [n] elements."""
    return np.cumsum(counts) - counts


def _near_places(grids: Grids, images: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of an object and a tile that may overlap: the objects' indices and the tiles' (row, column).

    The pairs include all that do overlap. An object in an image without tiles is in none. `corners` [n, 4] are the
    objects' boxes.
    """
    side, step = grids.tiles.side, grids.tiles.step
    counts, offsets = grids.counts[images], grids.offsets[images]
    low, high = corners[:, 1::-1], corners[:, :1:-1]  # (top, left) and (bottom, right)
    first = np.floor((low - side + offsets) / step).astype(np.int64).clip(0, (counts - 1).clip(min=0))
    last = (np.floor((high + offsets) / step).astype(np.int64) + 1).clip(0, counts - 1)
    spans = (last - first + 1).clip(min=0)  # [n, 2]
    num = spans.prod(axis=1)
    which = np.repeat(np.arange(len(corners)), num)
    number = np.arange(len(which)) - np.repeat(np.cumsum(num) - num, num)
    down, right = np.divmod(number, spans[which, 1]) if len(which) else (number, number)
    return which, first[which] + np.stack([down, right], axis=1)


class TiledEpochs:
    """Selects the images and tiles that each epoch of a run shows, which depend only on the seed and the epoch.

    An epoch shows each image as a whole, each tile with an object to learn, and one in four of the other tiles.
    """

    def __init__(
        self, dataset: CocoDataset, tiles: Tiles, min_visible: float, seed: int = 0, repeat_threshold: float = 0.0
    ) -> None:
        """Stores the settings; for `repeat_threshold`, see repeat_factors."""
        self.dataset, self.tiles, self.min_visible, self.seed = dataset, tiles, min_visible, seed
        self.objects = dataset.learned(np.flatnonzero(dataset.is_learned))
        self.repeats = bool(repeat_threshold)
        factors = class_factors(dataset, repeat_threshold)
        self.values = factors[self.objects.labels] if self.repeats else np.ones(len(self.objects.labels))

    def tiled_in(self, epoch: int) -> Tiled:
        """Returns every tile of the grids of `epoch`, including the tiles that the epoch leaves out."""
        grids = grids_of(self.dataset.annotations.sizes, self.tiles, self.seed, epoch)
        windows = windows_of(grids)
        values = np.zeros(len(windows))
        for seen in tile_targets(grids, self.objects.images, self.objects.corners, self.min_visible):
            np.maximum.at(values, seen.tiles, self.values[seen.objects])
        return Tiled(windows, values)

    def shown_in(self, epoch: int) -> Shown:
        every = self.tiled_in(epoch)
        empty = np.flatnonzero(every.values == 0)
        draw = np.random.default_rng([self.seed, epoch, TILE_STREAM, 1])
        drawn = draw.permutation(empty)[: -(-len(empty) // EMPTY_ONE_IN)]
        chosen = np.sort(np.concatenate([np.flatnonzero(every.values), drawn]))
        num_images = len(self.dataset)
        sizes = self.dataset.annotations.sizes.astype(np.int64)  # (height, width)
        wholes = np.concatenate([np.arange(num_images)[:, None], np.zeros_like(sizes), sizes], axis=1)
        windows = np.concatenate([wholes, every.windows[chosen]])
        factors = None
        if self.repeats:
            of_images = np.ones(num_images)
            np.maximum.at(of_images, self.objects.images, self.values)
            factors = whole_sum(np.concatenate([of_images, every.values[chosen].clip(min=1)]))

        def sizes_at(indices: np.ndarray, side: int | None) -> np.ndarray:
            return self.dataset.sizes_of(windows[indices, 3:], side)

        return Shown(sizes_at(np.arange(len(windows)), None), factors, sizes_at, windows)

    def line(self) -> str:
        """Returns the log line with the numbers of images and tiles in the first epoch."""
        every, num_images = self.tiled_in(0), len(self.dataset)
        num_targets, num_empty = int((every.values > 0).sum()), int((every.values == 0).sum())
        num_shown = -(-num_empty // EMPTY_ONE_IN)
        repeats = f"; with repeats, {self.shown_in(0).num_drawn}" if self.repeats else ""
        return (
            f"Tiles: side {self.tiles.side}, overlap {self.tiles.overlap:g}: the first epoch shows "
            f"{num_images + num_targets + num_shown} images: {num_images} whole, {num_targets} tiles with objects to "
            f"learn, and {num_shown} of {num_empty} tiles without{repeats}"
        )


def sizes_of_epoch(dataset: CocoDataset, tiles: Tiles | None, min_visible: float) -> np.ndarray:
    """Returns the original sizes, int64 [K, 2], of the images and tiles of a typical epoch, without repeats."""
    if not tiles:
        return dataset.annotations.sizes
    windows = TiledEpochs(dataset, tiles, min_visible).shown_in(0).windows
    assert windows is not None
    return windows[:, 3:]

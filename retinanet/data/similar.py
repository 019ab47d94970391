"""Finds pictures that look alike, such as frames of a video or copies saved again at another size or quality."""

from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from PIL import Image

from retinanet.data.dataset import CocoDataset

CELLS = 8  # a hash compares 8 x 8 pairs of neighbouring cells in each direction
FLAT = 1.0  # a smaller difference of grey levels is noise
SMALL = 16  # side of the small picture that confirms a pair
# Of the 296,835 pairs of unrelated photos in 771 of PASCAL VOC, one differs in as few as 24 of 128 bits, and none
# correlates more closely than 0.933. Saved again at 0.6 of their size and JPEG quality 30, they differ in 12 bits at
# most and correlate at 0.998; shifted by a fiftieth, 16 bits and 0.94.
MOST_BITS = 24  # the most bits in which the hashes of pictures that look alike differ
LEAST_CORRELATION = 0.9  # of their small pictures
PLAIN = 4.0  # a deviation of grey levels below which a picture shows nothing to compare
HASHES_IN_BLOCK = 2048
IMAGES_A_TASK = 8


class Looks(NamedTuple):
    """What n pictures look like."""

    hashes: np.ndarray  # uint64 [n, 2], difference hashes: along the rows, and down the columns
    small: np.ndarray  # float32 [n, SMALL * SMALL], grey, with mean 0 and length 1; 0 for a plain picture

    def __len__(self) -> int:
        return len(self.hashes)


def looks_of(dataset: CocoDataset, threads: int) -> Iterator[Looks]:
    """Yields the look of each image of `dataset`, in order. Raises UserError if an image can't be read.

    Threads are enough: Pillow releases the GIL.
    """
    with ThreadPool(threads) as pool:
        yield from pool.imap(lambda index: look_of(dataset.original(index)), range(len(dataset)), IMAGES_A_TASK)


def look_of(image: np.ndarray) -> Looks:
    """Returns the look (n = 1) of an image, uint8 [height, width, 3]."""
    grey = Image.fromarray(image).convert("L")
    along = _cells(grey, CELLS + 1, CELLS)
    down = _cells(grey, CELLS, CELLS + 1)
    bits = np.stack([np.diff(along, axis=1) > FLAT, np.diff(down, axis=0) > FLAT]).reshape(2, -1)
    small = _cells(grey, SMALL, SMALL).reshape(1, -1)
    small = small - small.mean()
    small = small / np.linalg.norm(small) if small.std() >= PLAIN else np.zeros_like(small)
    return Looks(np.packbits(bits, axis=1).view(np.uint64).reshape(1, 2), small)


def _cells(grey: Image.Image, width: int, height: int) -> np.ndarray:
    """Returns the mean grey levels of `height` x `width` cells: float32 [height, width]."""
    return np.asarray(grey.convert("F").resize((width, height), Image.Resampling.BOX), np.float32)


def joined_looks(looks: list[Looks]) -> Looks:
    return Looks(*map(np.concatenate, zip(*looks, strict=True)))


def alike(looks: Looks, others: Looks) -> np.ndarray:
    """Returns the pairs of `looks` and `others` that look alike: int64 [pairs, 2], indices, sorted."""
    parts = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(looks), HASHES_IN_BLOCK):
        for place in range(0, len(others), HASHES_IN_BLOCK):
            first, second = (
                hashes[at : at + HASHES_IN_BLOCK] for hashes, at in ((looks.hashes, start), (others.hashes, place))
            )
            bits = np.bitwise_count(first[:, None] ^ second).sum(axis=2, dtype=np.uint8)  # [n, m]
            rows, columns = np.nonzero(bits <= MOST_BITS)
            rows, columns = rows + start, columns + place
            correlation = (looks.small[rows] * others.small[columns]).sum(axis=1)
            is_alike = correlation >= LEAST_CORRELATION
            parts.append(np.stack([rows[is_alike], columns[is_alike]], axis=1))
    pairs = np.concatenate(parts)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def groups_of_pairs(pairs: np.ndarray, count: int) -> np.ndarray:
    """Returns the group of each of `count` things, int64 [count]: the least index that `pairs` connect it with."""
    groups = np.arange(count)
    while len(pairs):
        least = np.minimum(groups[pairs[:, 0]], groups[pairs[:, 1]])
        before = groups.copy()
        np.minimum.at(groups, pairs[:, 0], least)
        np.minimum.at(groups, pairs[:, 1], least)
        groups = groups[groups]
        if (groups == before).all():
            break
    return groups

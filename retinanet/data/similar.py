"""Finds pictures that look alike, such as video frames, or copies that were re-saved, slightly cropped or mirrored."""

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32  # of the small picture that is compared
FREQUENCIES = 12  # of the discrete cosine transform, in each direction
CUT = 0.06  # how far two pictures may be cropped or shifted relative to each other, as a fraction of a side
# Of the 461,280 pairs in 961 photos of PASCAL VOC, the hashes of 46 correlate more closely than CANDIDATE. Of these,
# two shots of a car have a likeness of 0.68, and the next pair has 0.53. Two noisy pictures of a square have 0.71.
# Copies at JPEG quality 40, 1.6 times as bright, or cropped by 0.03 to 0.06 at two to four sides have 0.83 or more.
CANDIDATE = 0.45
LEAST_LIKENESS = 0.75
PLAIN = 4.0  # a standard deviation of grey levels below which a picture has nothing to compare
LOOKS_IN_BLOCK = 2048
MOST_CANDIDATES = 8  # per picture, in a block of others: enough to connect the pictures if nearly all look alike
IMAGES_A_TASK = 8


class Looks(NamedTuple):
    """The appearance of n pictures, as hashes and small copies."""

    hashes: np.ndarray  # float32 [n, FREQUENCIES * FREQUENCIES], of length 1; 0 for a plain picture
    small: np.ndarray  # uint8 [n, SIDE, SIDE], grey

    def __len__(self) -> int:
        return len(self.hashes)


def looks_of(read: Callable[[int], np.ndarray], count: int, threads: int) -> Iterator[Looks]:
    """Yields the Looks (n = 1) of each of `count` images, in order; `read` returns the image at an index.

    Threads are enough, because Pillow releases the GIL.
    """
    with ThreadPool(threads) as pool:
        yield from pool.imap(lambda index: look_of(read(index)), range(count), IMAGES_A_TASK)


def look_of(image: np.ndarray) -> Looks:
    """Returns the Looks (n = 1) of an image, uint8 [height, width, 3]."""
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    small = np.asarray(grey)[None]
    return Looks(_hashes(small, PARTS[:1])[:, 0] * np.float32(small.std() >= PLAIN), small)


def joined_looks(looks: list[Looks]) -> Looks:
    return Looks(*map(np.concatenate, zip(*looks, strict=True)))


def alike(looks: Looks, others: Looks) -> np.ndarray:
    """Returns the pairs of indices into `looks` and `others` whose pictures look alike: int64 [pairs, 2], sorted."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(pairs for pairs, _ in _compared(looks, others))])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def most_similar(looks: Looks, others: Looks) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each of `looks`, the index of the most similar of `others`, int64 [n], and the likeness, [n].

    The index is -1 and the likeness 0 if nothing in `others` looks similar.
    """
    best, likeness = np.full(len(looks), -1), np.zeros(len(looks), np.float32)
    for pairs, likenesses in _compared(looks, others):
        order = np.argsort(likenesses, kind="stable")
        order = order[likenesses[order] > likeness[pairs[order, 0]]]
        rows, columns = pairs[order].T  # the last pair of each row, the most similar one, stays
        best[rows], likeness[rows] = columns, likenesses[order]
    return best, likeness


def groups_of(keys: Sequence[str], looks: Looks | None) -> np.ndarray:
    """Groups images that have the same key or look alike. Returns the lowest index in each image's group: int64 [N].

    Groups that share an image are joined. Without `looks`, only keys count.
    """
    first: dict[str, int] = {}
    pairs = [np.array([[first.setdefault(key, row), row] for row, key in enumerate(keys)]).reshape(-1, 2)]
    if looks is not None:
        pairs.append(alike(looks, looks))
    return groups_of_pairs(np.concatenate(pairs), len(keys))


def groups_of_pairs(pairs: np.ndarray, count: int) -> np.ndarray:
    """Returns each item's group, int64 [count]: the lowest index that `pairs` connect to it, directly or indirectly."""
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


def _compared(looks: Looks, others: Looks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of pictures that look alike, int64 [pairs, 2], and their similarities, [pairs], block by block."""
    for start in range(0, len(looks), LOOKS_IN_BLOCK):
        hashes = looks.hashes[start : start + LOOKS_IN_BLOCK]
        for place in range(0, len(others), LOOKS_IN_BLOCK):
            of_others = others.hashes[place : place + LOOKS_IN_BLOCK].T
            straight, mirrored = hashes @ of_others, (hashes * MIRRORING) @ of_others  # [n, m]
            is_mirrored = mirrored > straight
            likeness = np.maximum(straight, mirrored)
            is_candidate = likeness >= CANDIDATE
            if is_candidate.sum() > MOST_CANDIDATES * len(hashes):
                is_candidate &= likeness >= np.partition(likeness, -MOST_CANDIDATES, axis=1)[:, [-MOST_CANDIDATES]]
            candidates = np.argwhere(is_candidate)
            for chunk in np.split(candidates, range(LOOKS_IN_BLOCK, len(candidates), LOOKS_IN_BLOCK)):
                pairs = chunk + np.array([start, place])
                small, other = looks.small[pairs[:, 0]], others.small[pairs[:, 1]]
                is_flipped = is_mirrored[chunk[:, 0], chunk[:, 1], None, None]
                likenesses = _likenesses(np.where(is_flipped, small[:, :, ::-1], small), other)
                is_alike = likenesses >= LEAST_LIKENESS
                yield pairs[is_alike], likenesses[is_alike]


def _likenesses(small: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns, for each pair of small pictures, the likeness of their most similar parts: float32 [n].

    The pictures are compared twice, as they are and with the same contrast everywhere, and the lower likeness counts.
    Otherwise, any two pictures of a single object on similar backgrounds would look alike.
    """
    likenesses = []
    for first, second in ((small, other), (_evened(small), _evened(other))):
        of_parts = _hashes(first, PARTS) @ _hashes(second, PARTS).transpose(0, 2, 1)  # [n, parts, parts]
        likenesses.append(of_parts.max(axis=(1, 2)))
    return np.minimum(*likenesses)


def _evened(small: np.ndarray) -> np.ndarray:
    """Returns small pictures with a local mean of 0 and the same contrast everywhere: float32 [n, SIDE, SIDE]."""
    small = small.astype(np.float32)
    mean = NEARBY @ small @ NEARBY.T
    variance = NEARBY @ small**2 @ NEARBY.T - mean**2
    return (small - mean) / (np.sqrt(variance.clip(0)) + PLAIN)


def _hashes(small: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Returns the hashes of small pictures [n, SIDE, SIDE]: float32 [n, P * P, FREQUENCIES * FREQUENCIES].

    There is a hash for each way to choose one of the `parts` [P, FREQUENCIES, SIDE] for the height and one for the
    width.
    """
    transform = parts.reshape(-1, SIDE)
    waves = transform @ small.astype(np.float32) @ transform.T  # [n, P * FREQUENCIES, P * FREQUENCIES]
    waves = waves.reshape(len(small), len(parts), FREQUENCIES, len(parts), FREQUENCIES).transpose(0, 1, 3, 2, 4)
    # Square roots keep a single strong edge, such as a horizon, from dominating. The mean grey level has weight 0.
    roots = np.sign(waves) * np.sqrt(np.abs(waves) * WEIGHTS)
    roots = roots.reshape(len(small), len(parts) ** 2, FREQUENCIES**2)
    return roots / np.maximum(np.linalg.norm(roots, axis=2, keepdims=True), np.finfo(np.float32).tiny)


def _part(before: float, after: float) -> np.ndarray:
    """Returns the matrix of the cosine transform along one side of a small picture: [FREQUENCIES, SIDE].

    The side is cropped by `before` at its start and by `after` at its end, as fractions of its length.
    """
    cells = np.arange(SIDE)
    waves = np.cos(np.pi * (cells + 0.5) * np.arange(FREQUENCIES)[:, None] / SIDE)
    places = (before + (cells + 0.5) / SIDE * (1 - before - after)) * SIDE - 0.5
    interpolation = np.maximum(0, 1 - np.abs(places.clip(0, SIDE - 1)[:, None] - cells))
    return (waves @ interpolation).astype(np.float32)


PARTS = np.stack([_part(0, 0), _part(CUT / 2, CUT / 2), _part(CUT, 0), _part(0, CUT)])  # the first is the whole side
NEARBY = (np.abs(np.subtract.outer(np.arange(SIDE), np.arange(SIDE))) <= 4).astype(np.float32)
NEARBY /= NEARBY.sum(axis=1, keepdims=True)  # averages 9 cells, or fewer at the border
WEIGHTS = np.sqrt(np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES])).astype(np.float32)  # high frequencies are weak
MIRRORING = np.tile((-1.0) ** np.arange(FREQUENCIES), FREQUENCIES).astype(np.float32)  # the hash of a mirrored picture

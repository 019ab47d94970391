"""Copies of a picture look alike, whatever their size and quality; other pictures, and plain ones, don't."""

import io
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.data import similar
from retinanet.data.similar import LEAST_CORRELATION, MOST_BITS, Looks, alike, groups_of_pairs, joined_looks, look_of


def scene(seed):
    """A picture of blurred noise, in which every cell has a grey level of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC))


def saved_again(image, size, quality):
    file = io.BytesIO()
    Image.fromarray(image).resize(size).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def pairs_of(images, others):
    return alike(*(joined_looks([look_of(image) for image in each]) for each in (images, others))).tolist()


@pytest.mark.parametrize(("size", "quality"), [((320, 240), 20), ((160, 120), 90), ((480, 360), 90), ((250, 200), 50)])
def test_a_copy_looks_like_its_original_and_like_nothing_else(size, quality):
    images = [scene(seed) for seed in range(20)]
    assert pairs_of(images, [saved_again(image, size, quality) for image in images]) == [[i, i] for i in range(20)]


def test_a_brighter_copy_looks_alike():
    image = scene(1)
    assert pairs_of([image], [(image * 0.7 + 40).astype(np.uint8)]) == [[0, 0]]


def test_plain_pictures_are_like_nothing():
    plain = [np.full((60, 80, 3), level, np.uint8) for level in (0, 200, 200)]
    assert pairs_of(plain, plain) == []


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 9), block=st.integers(1, 4))
def test_the_pairs_are_those_of_a_loop(seed, count, block):
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 2**63, (2, 2), dtype=np.uint64)[draw.integers(2, size=count)]
    hashes ^= np.uint64(1) << draw.integers(0, 63, (count, 2), dtype=np.uint64)
    small = draw.normal(size=(2, 9)).astype(np.float32)[draw.integers(2, size=count)]
    looks = Looks(hashes, small / np.linalg.norm(small, axis=1, keepdims=True))

    def are_alike(first, second):
        bits = sum(int(a ^ b).bit_count() for a, b in zip(hashes[first], hashes[second], strict=True))
        return bits <= MOST_BITS and float(looks.small[first] @ looks.small[second]) >= LEAST_CORRELATION

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar, "HASHES_IN_BLOCK", block)
        assert alike(looks, looks).tolist() == [
            list(pair) for pair in product(range(count), repeat=2) if are_alike(*pair)
        ]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_what_pairs_connect(case):
    count, pairs = case
    groups = [{number} for number in range(count)]
    for first, second in pairs:
        joined = next(group for group in groups if first in group) | next(group for group in groups if second in group)
        groups = [group for group in groups if not group & joined] + [joined]
    expected = [min(next(group for group in groups if number in group)) for number in range(count)]
    assert groups_of_pairs(np.array(pairs).reshape(-1, 2).astype(int), count).tolist() == expected

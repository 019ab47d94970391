"""Copies of a picture are found by what they look like, and other pictures aren't."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from support.photos import made_up_photo

from retinanet.data import similar
from retinanet.data.similar import alike, groups_of_pairs, joined_looks, look_of, looks_of, most_similar

COUNT = 40
PHOTOS = [made_up_photo(seed) for seed in range(COUNT)]


def saved(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def smaller(picture):
    return picture.resize((224, 168))


def cropped(picture, left=0.03, top=0.03, right=0.03, bottom=0.03):
    width, height = picture.size
    return picture.crop((left * width, top * height, (1 - right) * width, (1 - bottom) * height))


def brighter(picture):
    return ImageEnhance.Brightness(picture).enhance(1.3)


WAYS = {
    "saved again": saved,
    "larger": lambda picture: picture.resize((480, 360)),
    "of another shape": lambda picture: picture.resize((250, 200)),
    "smaller": smaller,
    "cropped": cropped,
    "cropped at a corner": lambda picture: cropped(picture, 0.06, 0.06, 0, 0),
    "brighter": brighter,
    "mirrored": ImageOps.mirror,
    "all at once": lambda picture: saved(ImageOps.mirror(brighter(cropped(smaller(picture))))),
    "another part of the scene": lambda picture: cropped(picture, 0, 0, 0.04, 0),
}


def looks(pictures):
    return joined_looks([look_of(np.asarray(picture)) for picture in pictures])


@pytest.fixture(scope="module")
def originals():
    return looks(PHOTOS)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_found_and_nothing_else(originals, way):
    pairs = alike(looks(map(WAYS[way], PHOTOS)), originals)
    found = pairs[pairs[:, 0] == pairs[:, 1]]
    assert len(found) >= 0.9 * COUNT
    assert len(pairs) == len(found)


def test_the_most_similar_is_named_with_its_likeness_in_blocks_too(originals, monkeypatch):
    queries = looks([cropped(PHOTOS[7]), made_up_photo(99), PHOTOS[3]])
    others = joined_looks([originals, looks([brighter(PHOTOS[3]), cropped(PHOTOS[7], 0.09)])])
    best, likeness = most_similar(queries, others)
    assert best.tolist() == [7, -1, 3]
    assert (likeness[1], likeness[2]) == (0, pytest.approx(1))
    monkeypatch.setattr(similar, "LOOKS_IN_BLOCK", 2)
    assert np.array_equal(most_similar(queries, others)[0], best)
    assert np.array_equal(alike(queries, others)[:, 0], [0, 0, 2, 2])


def test_plain_pictures_show_nothing_to_compare():
    plain = looks([Image.new("RGB", (64, 48), colour) for colour in ("white", "black", "white")])
    assert not len(alike(plain, plain))


def test_looks_come_in_the_order_of_the_images(originals):
    pixels = [np.asarray(photo) for photo in PHOTOS]
    read = joined_looks(list(looks_of(pixels.__getitem__, COUNT, threads=3)))
    assert np.array_equal(read.small, originals.small)


def test_a_set_of_nothing_but_look_alikes_is_one_group(originals, monkeypatch):
    """Though each picture is compared with only some of them."""
    count = 5 * similar.MOST_CANDIDATES
    nearly_same = looks(ImageEnhance.Brightness(PHOTOS[0]).enhance(1 + 0.01 * number) for number in range(count))
    monkeypatch.setattr(similar, "LOOKS_IN_BLOCK", count // 2)
    assert not groups_of_pairs(alike(nearly_same, nearly_same), count).any()


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

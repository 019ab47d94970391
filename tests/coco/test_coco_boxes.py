import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.coco.boxes import (
    boxes_of,
    clipped_corners,
    corners_of,
    in_fractions,
    mirrored_corners,
    resized_corners,
    shared_area,
)
from retinanet.data.transforms import mirrored_boxes
from retinanet.detector import boxes as tensors

SIZES = np.array([[20, 50], [30, 10]])


def random_corners(seed, count):
    draw = np.random.default_rng(seed)
    firsts = draw.uniform(-5, 30, (count, 2))
    return np.concatenate([firsts, firsts + draw.uniform(0, 30, (count, 2))], axis=1)


@given(st.integers(0, 2**31))
def test_arrays_and_tensors_agree(seed):
    one, two = random_corners(seed, 2), random_corners(seed + 1, 2)
    boxes, others = torch.from_numpy(one), torch.from_numpy(two)
    shared = tensors.shared_area(boxes.t()[:, :, None].unbind(), others.t().unbind())
    np.testing.assert_allclose(shared_area(boxes_of(one)[:, None], boxes_of(two)), shared.numpy(), atol=1e-9)
    mirrored = mirrored_boxes(boxes, torch.from_numpy(SIZES[:, 1]))
    np.testing.assert_array_equal(mirrored_corners(one, SIZES[:, 1]), mirrored.numpy())
    scales = torch.from_numpy(SIZES[::-1] / SIZES)
    np.testing.assert_array_equal(
        resized_corners(one, SIZES, SIZES[::-1]), (boxes * tensors.per_coordinate(scales)).numpy()
    )
    sides = boxes_of(one)
    clipped = tensors.clip(torch.from_numpy(corners_of(sides))[:, None], torch.from_numpy(SIZES))
    np.testing.assert_array_equal(clipped_corners(sides, SIZES), clipped[:, 0].numpy())


def test_by_hand():
    boxes = np.array([[-2.0, 1, 10, 4], [8, 28, 4, 5]])  # (left, top, width, height)
    corners = clipped_corners(boxes, SIZES)
    assert corners.tolist() == [[0, 1, 8, 5], [8, 28, 10, 30]]
    assert mirrored_corners(corners, SIZES[:, 1]).tolist() == [[42, 1, 50, 5], [0, 28, 2, 30]]
    assert resized_corners(corners, SIZES, np.array([[40, 25], [30, 20]])).tolist() == [[0, 2, 4, 10], [16, 28, 20, 30]]
    assert corners_of(boxes).tolist() == [[-2, 1, 8, 5], [8, 28, 12, 33]]
    assert boxes_of(corners_of(boxes)).tolist() == boxes.tolist()
    assert shared_area(boxes[0], np.array([4.0, -5, 9, 8])) == 4 * 2
    assert shared_area(boxes[0], boxes[1]) == 0


SIZE = [480, 640]
PIXELS = [[40, 60, 120, 200], [300, 10, 64, 64], [5, 5, 630, 470], [100, 200, 8, 9]]


def fractions(boxes, size=SIZE):
    return (np.array(boxes) / np.tile(size[::-1], 2)).tolist()


def centred(boxes):
    return [[left + width / 2, top + height / 2, width, height] for left, top, width, height in boxes]


def corners(boxes):
    return [[left, top, left + width, top + height] for left, top, width, height in boxes]


def found(boxes, size=SIZE):
    return in_fractions(np.array(boxes, float).reshape(-1, 4), np.array([size] * len(boxes)).reshape(-1, 2)).tolist()


def test_whatever_the_four_numbers_are():
    for written in (PIXELS, centred(PIXELS), corners(PIXELS)):
        assert found(fractions(written)) == [True] * 4
        assert found(written) == [False] * 4


def test_most_must_be():
    assert found([[-0.02, 0.3, 0.5, 0.7], [0.6, 0.2, 1.04, 0.1]]) == [True] * 2  # not clipped
    assert found([*fractions(PIXELS[:3]), [200, 200, 30, 30], [0.1, 0.1, 0, 0.2]]) == [True] * 3 + [False] * 2
    assert found([[0, 0, 0.5, 0.8], [5, 9, 30, 40]]) == [False] * 2  # what a tile's corner has left of an object


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        ([], SIZE),
        ([[0, 0, 1, 1]] * 4, SIZE),  # placeholders
        ([[0, 0, 0, 0], [0.2, 0.2, 0, 0]], SIZE),
        ([[0.2, 0.2, 0.6, 0.5], [0, 0.1, 0.9, 0.9]], [8, 8]),  # an image of few pixels
        ([[0.2, 0.2, 0.6, 0.5], [0, 0.1, 0.9, 0.9]], [12, 640]),
        ([[0.3, 3.2, 0.6, 0.7], [0.5, 0.5, 0.5, 0.5], [1.4, 0, 0.9, 0.9]], SIZE),
    ],
)
def test_near_misses(boxes, size):
    assert not any(found(boxes, size))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 50), side=st.floats(0.1, 1))
def test_objects_of_less_than_a_pixel_are_none(seed, count, side):
    """Stars, or cells seen from afar: all objects are tiny, and anywhere in their images."""
    draw = np.random.default_rng(seed)
    places = draw.uniform(0, [SIZE[1] - 1, SIZE[0] - 1], (count, 2))
    assert not any(found(np.column_stack([places, draw.uniform(side / 2, side, (count, 2))])))

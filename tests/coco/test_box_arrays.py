import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.coco.box_arrays import clipped_corners, edges_of, mirrored_corners, resized_corners, shared_area
from retinanet.data.transforms import mirrored_boxes
from retinanet.detector import boxes as tensors

SIZES = np.array([[20, 50], [30, 10]])


def corners_of(seed, count):
    draw = np.random.default_rng(seed)
    firsts = draw.uniform(-5, 30, (count, 2))
    return np.concatenate([firsts, firsts + draw.uniform(0, 30, (count, 2))], axis=1)


@given(st.integers(0, 2**31))
def test_arrays_and_tensors_agree(seed):
    one, two = corners_of(seed, 2), corners_of(seed + 1, 2)
    boxes, others = torch.from_numpy(one), torch.from_numpy(two)
    shared = tensors.shared_area(boxes.t()[:, :, None].unbind(), others.t().unbind())
    np.testing.assert_array_equal(shared_area(tuple(one.T[..., None]), tuple(two.T)), shared.numpy())
    mirrored = mirrored_boxes(boxes, torch.from_numpy(SIZES[:, 1]))
    np.testing.assert_array_equal(mirrored_corners(one, SIZES[:, 1]), mirrored.numpy())
    scales = torch.from_numpy(SIZES[::-1] / SIZES)
    np.testing.assert_array_equal(
        resized_corners(one, SIZES, SIZES[::-1]), (boxes * tensors.per_coordinate(scales)).numpy()
    )
    sides = np.concatenate([one[:, :2], one[:, 2:] - one[:, :2]], axis=1)
    clipped = tensors.clip(torch.from_numpy(np.stack(edges_of(sides), axis=1))[:, None], torch.from_numpy(SIZES))
    np.testing.assert_array_equal(clipped_corners(sides, SIZES), clipped[:, 0].numpy())


def test_by_hand():
    boxes = np.array([[-2.0, 1, 10, 4], [8, 28, 4, 5]])  # (left, top, width, height)
    corners = clipped_corners(boxes, SIZES)
    assert corners.tolist() == [[0, 1, 8, 5], [8, 28, 10, 30]]
    assert mirrored_corners(corners, SIZES[:, 1]).tolist() == [[42, 1, 50, 5], [0, 28, 2, 30]]
    assert resized_corners(corners, SIZES, np.array([[40, 25], [30, 20]])).tolist() == [[0, 2, 4, 10], [16, 28, 20, 30]]
    assert shared_area(edges_of(boxes[0]), edges_of(np.array([4.0, -5, 9, 8]))) == 4 * 2
    assert shared_area(edges_of(boxes[0]), edges_of(boxes[1])) == 0

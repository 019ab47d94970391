import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.data.transforms import (
    flip,
    longest_at,
    pad_and_stack,
    padded_shape,
    padded_sizes,
    resize,
    resized_sizes,
    scale_boxes,
)
from retinanet.training.compilation import few_sides


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((608, 608), (608, 608)),
        ((375, 500), (608, 811)),  # the shorter side decides
        ((500, 375), (811, 608)),
        ((300, 900), (341, 1024)),  # the longer side does
        ((1, 10000), (1, 1024)),  # no side vanishes
        ((1216, 1216), (608, 608)),
    ],
)
def test_resized_size(size, expected):
    assert resized_sizes(np.array([size]), 608, 1024).tolist() == [list(expected)]


@pytest.mark.parametrize(("side", "longest"), [(608, 1024), (480, 808), (304, 512), (1216, 2048)])
def test_the_longer_side_is_limited_in_proportion(side, longest):
    assert longest_at(side, 608, 1024) == longest


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_resized_sides_stay_within_their_limits(height, width):
    small, large = sorted(resized_sizes(np.array([[height, width]]), 608, 1024)[0])
    assert small <= 608
    assert large <= 1024
    assert small == 608 or large == 1024


@pytest.mark.parametrize(("size", "expected"), [((1, 32), (32, 32)), ((33, 64), (64, 64)), ((608, 811), (608, 832))])
def test_padded_size(size, expected):
    assert padded_sizes(np.array(size)).tolist() == list(expected)


@pytest.mark.parametrize(
    ("min_side", "max_side", "sides"),
    [
        (608, 1024, [608, 768, 928, 1024]),
        (256, 426, [256, 320, 384, 448]),
        (608, 608, [608]),
        (600, 640, [608, 640]),
        (64, 96, [64, 96]),
    ],
)
def test_few_sides(min_side, max_side, sides):
    assert few_sides(min_side, max_side) == sides


def test_padding_to_a_few_sides_only():
    assert padded_shape([64, 100], [64, 160, 256]) == (64, 160)
    assert padded_shape([64, 100]) == (64, 128)


def test_resize_has_a_scale_for_each_axis():
    assert resize(torch.zeros(3, 100, 50, dtype=torch.uint8), (30, 16)).shape == (3, 30, 16)
    boxes, scale = scale_boxes(torch.tensor([[5.0, 10, 50, 100]]), (100, 50), (30, 16))
    torch.testing.assert_close(scale, torch.tensor([0.3, 0.32]))
    torch.testing.assert_close(boxes, torch.tensor([[1.6, 3.0, 16, 30]]))


def test_flip_by_hand_and_twice():
    image = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    boxes = torch.tensor([[0.0, 0, 1, 2], [1, 1, 4, 2]])
    flipped, mirrored = flip(image, boxes)
    assert flipped[0, 0].tolist() == [3, 2, 1, 0]
    assert mirrored.tolist() == [[3, 0, 4, 2], [0, 1, 3, 2]]
    again, back = flip(flipped, mirrored)
    assert torch.equal(again, image)
    assert torch.equal(back, boxes)


def test_padding_is_right_and_below_and_of_the_mean_colour():
    stacked = pad_and_stack(
        [torch.full((3, 40, 20), 7, dtype=torch.uint8), torch.full((3, 8, 33), 9, dtype=torch.uint8)], (64, 64)
    )
    assert stacked.shape == (2, 3, 64, 64)
    assert stacked.is_contiguous(memory_format=torch.channels_last)
    assert (stacked[0, :, :40, :20] == 7).all()
    assert (stacked[1, :, :8, :33] == 9).all()
    for row, height, width in ((0, 40, 20), (1, 8, 33)):
        padding = torch.cat([stacked[row, :, height:].flatten(1), stacked[row, :, :, width:].flatten(1)], dim=1)
        assert padding.unique(dim=1).tolist() == [[124], [116], [104]]

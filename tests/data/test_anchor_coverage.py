import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet.data.anchor_coverage import MORE_RATIOS, AnchorSetup, alternatives, best_ious, ious_of, shares
from retinanet.data.transforms import padded_sizes
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, anchors_for, cell_anchors
from retinanet.detector.matching import match_anchors
from retinanet.detector.structures import Targets

CPU = torch.device("cpu")


@st.composite
def boxes_in_an_image(draw):
    """(height, width) of an image and boxes [n, 4] in it, some at its borders and some thin ones."""
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    shares_of_side = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        x1, x2 = sorted(width * draw(shares_of_side) for _ in range(2))
        y1, y2 = sorted(height * draw(shares_of_side) for _ in range(2))
        if x2 - x1 > 1e-6 and y2 - y1 > 1e-6:
            boxes.append([x1, y1, x2, y2])
    return (height, width), np.array(boxes).reshape(-1, 4)


def slow_best_ious(boxes, height, width):
    """Every anchor of the padded image with every box."""
    every = anchors_for(*padded_sizes(np.array([height, width])).tolist(), CPU).double()
    return box_iou(torch.from_numpy(boxes), every).amax(dim=1).numpy()


@settings(max_examples=200, deadline=None)
@given(boxes_in_an_image())
def test_equal_to_every_anchor_with_every_box(case):
    (height, width), boxes = case
    np.testing.assert_allclose(best_ious(boxes), slow_best_ious(boxes, height, width), atol=2e-6)


@pytest.mark.parametrize(("side", "ratios"), [(2, DEFAULT_SHAPES.ratios), (6, DEFAULT_SHAPES.ratios), (3, MORE_RATIOS)])
def test_equal_for_other_anchors(side, ratios, monkeypatch):
    draw = np.random.default_rng(0)
    starts = draw.uniform(0, 200, (50, 2))
    boxes = np.concatenate([starts, (starts + np.exp(draw.uniform(0, 5.5, (50, 2)))).clip(max=256)], axis=1)
    levels = []
    for stride in STRIDES:
        centres = (torch.arange(-(-256 // stride), dtype=torch.float64) + 0.5) * stride
        x, y = torch.meshgrid(centres, centres, indexing="ij")
        cell = cell_anchors(stride, AnchorShapes(side, ratios))
        levels.append((torch.stack([x, y, x, y], dim=-1)[:, :, None] + cell).reshape(-1, 4))
    slow = box_iou(torch.from_numpy(boxes), torch.cat(levels)).amax(dim=1).numpy()
    np.testing.assert_allclose(best_ious(boxes, AnchorShapes(side, ratios)), slow, atol=1e-9)


def test_shares_are_what_the_matching_makes_of_the_anchors():
    draw = np.random.default_rng(1)
    starts = draw.uniform(0, 90, (200, 2))
    boxes = np.concatenate([starts, (starts + np.exp(draw.uniform(1, 4.5, (200, 2)))).clip(max=128)], axis=1)
    learned = ignored = 0
    for box in torch.from_numpy(boxes).float():
        matches = match_anchors(
            anchors_for(128, 128, CPU), Targets(box[None, None], torch.zeros(1, 1, dtype=torch.int64))
        )
        learned += bool(matches.foreground.any())
        ignored += bool(not matches.foreground.any() and not matches.background.all())
    assert 0 < ignored < learned < 199
    assert shares(best_ious(boxes)) == pytest.approx([learned / 200, ignored / 200, 1 - (learned + ignored) / 200])
    assert shares(np.zeros(0)) == [0, 0, 0]


def test_an_anchor_itself_is_reached_wholly_and_a_dot_not_at_all():
    boxes = np.array([[-12.0, -12, 20, 20], [100, 100, 101, 101]])
    assert best_ious(boxes) == pytest.approx([1, 1 / 32**2])


def test_sides_follow_the_resize_of_each_image():
    corners, sizes = np.array([[0.0, 0, 32, 32]] * 2), np.array([[100, 100], [200, 400]])
    now = ious_of(AnchorSetup(100, 150), corners, sizes)
    assert now == pytest.approx(best_ious(np.array([[0, 0, 32, 32], [0, 0, 12, 12]])))


def test_alternatives_are_those_that_change_something_and_the_flags_take():
    names = alternatives(AnchorSetup(608, 1024))
    assert "--min_side 760 --max_side 1280" in names
    assert names["--anchor_scale 3"] == AnchorSetup(608, 1024, AnchorShapes(3))
    assert "--anchor_scale 3" not in alternatives(AnchorSetup(608, 1024, AnchorShapes(3)))
    assert all(other.min_side >= 64 for other in alternatives(AnchorSetup(64, 64)).values())

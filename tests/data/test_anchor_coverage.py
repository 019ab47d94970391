import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.anchor_coverage import AnchorSetup, best_ious, coverage, ious_of, shares
from retinanet.data.anchor_remedies import MORE_RATIOS
from retinanet.data.dataset import CocoDataset
from retinanet.data.transforms import padded_sizes
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, anchors_for, cell_anchors
from retinanet.detector.loss import assign_targets
from retinanet.detector.settings import MATCHERS, LossSettings
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


@settings(max_examples=100, deadline=None)
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


@pytest.fixture
def dataset_of(make_set):
    def dataset(boxes_of_images, size=(200, 160), min_side=160, max_side=200):
        path = make_set(boxes_of_images, size=size)
        return CocoDataset(load_annotations(path), path.parent, min_side, max_side)

    return dataset


def slow_matched(dataset, setup, loss):
    """Which objects get an anchor in training: those whose class some anchor is to find, each class a single object."""
    matched = []
    for index in range(len(dataset)):
        sample_size = dataset.size_at(index, None)
        scale = [new / old for new, old in zip(sample_size, dataset.annotations.sizes[index].tolist(), strict=True)]
        boxes = dataset.objects(index)[0] * torch.tensor([scale[1], scale[0]] * 2)
        if not len(boxes):
            continue
        height, width = (-(-side // 32) * 32 for side in sample_size)
        targets = Targets(boxes[None], torch.arange(len(boxes))[None])
        anchors = anchors_for(height, width, CPU, setup.shapes)
        assignment = assign_targets(anchors, targets, len(boxes), loss, sparse=True, size=(height, width))
        learned = set((assignment.terms % len(boxes)).tolist())
        matched += [label in learned for label in range(len(boxes))]
    return matched


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("shapes", [DEFAULT_SHAPES, AnchorShapes(2, MORE_RATIOS)])
def test_the_objects_that_get_an_anchor_are_those_that_training_matches(dataset_of, matcher, shapes):
    draw = np.random.default_rng(2)
    images = []
    for crowding in (1, 1, 5, 20, 60, 150):  # near each other, so that they take each other's anchors
        starts = draw.uniform(0, 100, (crowding, 2))
        boxes = np.concatenate([starts, np.exp(draw.uniform(1, 3.7, (crowding, 2)))], axis=1)
        images.append([*boxes.tolist(), *(boxes + draw.uniform(0, 2, boxes.shape)).tolist()])
    dataset = dataset_of([*images, []])
    setup, loss = AnchorSetup(160, 200, shapes), LossSettings(matcher=matcher)
    found = coverage(dataset, setup, loss)
    assert found.are_all
    wanted = slow_matched(dataset, setup, loss)
    assert 0 < sum(wanted) < len(wanted)
    assert found.matched.tolist() == wanted
    if matcher == "iou":  # some objects lose their anchors to a neighbour
        reached = ious_of(setup, found.objects.corners, dataset.annotations.sizes[found.objects.images]) >= 0.5
        assert (reached & ~found.matched).sum() > 3


def test_of_two_tiny_neighbours_low_quality_leaves_one_without_an_anchor(dataset_of):
    dataset = dataset_of([[[46, 46, 4, 4], [44, 44, 8, 8]]], (96, 128), 96, 128)
    found = coverage(dataset, AnchorSetup(96, 128), LossSettings(matcher="low_quality"))
    assert found.matched.tolist() == [False, True]
    assert found.missed == 0.5


def test_shares_of_the_matched_and_of_the_others_by_their_best_anchor():
    matched = np.array([True, True, False, False, False])
    assert shares(matched, np.array([0.6, 0.5, 0.7, 0.4, 0.39])) == [0.4, 0.4, 0.2]
    assert shares(np.zeros(0, bool), np.zeros(0)) == [0, 0, 0]


def test_of_many_objects_those_of_images_drawn_are_matched(dataset_of):
    draw = np.random.default_rng(3)
    boxes = draw.uniform([0, 0, 16, 16], [100, 100, 40, 40], (400, 4)).tolist()
    dataset = dataset_of([boxes[start : start + 4] for start in range(0, 400, 4)])
    setup = AnchorSetup(160, 200)
    every, drawn = coverage(dataset, setup), coverage(dataset, setup, most=150)
    assert 140 <= len(drawn.matched) <= 150
    assert not drawn.are_all
    chosen = np.isin(every.objects.images, drawn.objects.images)
    np.testing.assert_array_equal(drawn.matched, every.matched[chosen])
    assert drawn.matched.tolist() == coverage(dataset, setup, most=150).matched.tolist()


def test_an_anchor_itself_is_reached_wholly_and_a_dot_not_at_all():
    boxes = np.array([[-12.0, -12, 20, 20], [100, 100, 101, 101]])
    assert best_ious(boxes) == pytest.approx([1, 1 / 32**2])


def test_sides_follow_the_resize_of_each_image():
    corners, sizes = np.array([[0.0, 0, 32, 32]] * 2), np.array([[100, 100], [200, 400]])
    now = ious_of(AnchorSetup(100, 150), corners, sizes)
    assert now == pytest.approx(best_ious(np.array([[0, 0, 32, 32], [0, 0, 12, 12]])))

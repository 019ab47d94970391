import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.built import small_network

from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import detect
from retinanet.detector.loss import detection_loss
from retinanet.detector.model import Head
from retinanet.detector.settings import MATCHERS, DetectionSettings, LossSettings
from retinanet.detector.structures import Targets
from retinanet.detector.windows import SparseNetwork, deltas_around, windows_of
from retinanet.training.losses import losses_of

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")
SHAPES = ((24, 20), (12, 10), (6, 5), (3, 3), (2, 2))
NUM_ANCHORS = 9 * sum(height * width for height, width in SHAPES)


def head_and_levels(num_images, num_outputs=4):
    head = Head(4, num_outputs, bias=0.0)
    torch.nn.init.normal_(head.output.weight)
    torch.nn.init.normal_(head.output.bias)
    for convolution in head.tower[::2]:
        torch.nn.init.normal_(convolution.bias)  # so that padding differs from what a border's neighbour gives
    return head, [torch.randn(num_images, 4, *shape) for shape in SHAPES]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([0, 1, 2, 5, 40]), st.sampled_from([4, 5]), st.booleans()
)
def test_the_rows_and_all_gradients_are_those_of_the_whole_head(seed, num_images, num_rows, num_outputs, split):
    torch.manual_seed(seed)
    head, levels = head_and_levels(num_images, num_outputs)
    head, levels = head.double(), [level.double() for level in levels]  # float32 sums may differ by more than the limit
    rows = torch.randperm(num_images * NUM_ANCHORS)[:num_rows]
    weights = torch.randn(num_rows, num_outputs).double()
    results = []
    for way in ("windows", "whole"):
        inputs = [level.clone().requires_grad_() for level in levels]
        whole = torch.cat([head(level) for level in inputs], dim=1)
        deltas = deltas_around(head, inputs, rows, split=split) if way == "windows" else whole
        assert deltas.shape == (num_images, NUM_ANCHORS, num_outputs)
        found = deltas.flatten(0, 1)[rows]
        wanted = [*inputs, *head.parameters()]
        results.append((found, *torch.autograd.grad((found * weights).sum(), wanted, materialize_grads=True)))
    for got, own in zip(*results, strict=True):
        torch.testing.assert_close(got, own, rtol=1e-4, atol=1e-4)


def test_a_head_that_nobody_looks_at_has_a_gradient_of_zero():
    head, levels = head_and_levels(2)
    deltas = deltas_around(head, levels, torch.zeros(0, dtype=torch.int64))
    deltas.flatten(0, 1)[torch.zeros(0, dtype=torch.int64)].sum().backward()
    assert all(value.grad is not None and not value.grad.any() for value in head.parameters())


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("empty", [False, True])
def test_a_step_is_the_same_as_with_the_whole_head(empty, matcher):
    torch.manual_seed(0)
    model = small_network(3).train()
    torch.nn.init.normal_(model.regression_head.output.weight, std=0.1)
    images = torch.randint(0, 256, (2, 3, 128, 96), dtype=torch.uint8)
    boxes = torch.tensor([[[10.0, 10, 60, 70], [0, 0, 0, 0]], [[30, 20, 90, 80], [5, 60, 40, 100]]])
    labels = torch.tensor([[1, -1], [0, 2]])
    targets = Targets(torch.zeros_like(boxes), torch.full_like(labels, -1)) if empty else Targets(boxes, labels)
    numbers = LossSettings(matcher=matcher)
    in_windows = losses_of(model, 3, CPU, loss_settings=numbers)(images, targets)
    whole = detection_loss(model(images), anchors_for(128, 96, CPU), targets, numbers, size=(128, 96))
    results = [(*losses, *torch.autograd.grad(sum(losses), list(model.parameters()))) for losses in (in_windows, whole)]
    for got, own in zip(*results, strict=True):
        assert (got - own).norm() <= 1e-5 * own.norm()


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 60), st.integers(1, 60))
def test_windows_hold_all_cells_and_are_apart(seed, num_cells, height, width):
    draw = torch.Generator().manual_seed(seed)
    cells = torch.zeros(height, width, dtype=torch.bool)
    cells.view(-1)[torch.randint(0, height * width, (num_cells,), generator=draw)] = True
    times = torch.zeros(height, width)
    for rows, columns in windows_of(cells):
        assert cells[rows, columns].any()
        times[rows, columns] += 1
    assert (times[cells] == 1).all()
    assert times.max() == 1


def test_two_far_clusters_have_a_window_each():
    cells = torch.zeros(40, 40, dtype=torch.bool)
    cells[2:4, 3], cells[30, 35:38] = True, True
    assert windows_of(cells) == [(slice(2, 4), slice(3, 4)), (slice(30, 31), slice(35, 38))]


@torch.no_grad()
def the_same_both_ways(model, images, threshold):
    """The detections of the whole network, once those of the sparse one are known to be the same."""
    anchors, sizes = anchors_for(*images.shape[2:], CPU), torch.tensor([[128, 192], [120, 160]])
    numbers = DetectionSettings(threshold=threshold)
    wanted = detect(model(images), anchors, sizes, numbers)
    found = detect(SparseNetwork(model, threshold)(images), anchors, sizes, numbers)
    for got, own in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, own)
    return wanted


@pytest.mark.parametrize("iou_branch", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 1.0])
def test_detections_are_those_of_the_whole_network(threshold, iou_branch):
    torch.manual_seed(1)
    model = small_network(3, iou_branch=iou_branch).eval().double()  # or rounding would change ranks
    images = torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8)
    with torch.no_grad():
        for head in (model.classification_head, model.regression_head):  # spread the outputs, but don't saturate them
            torch.nn.init.normal_(head.output.weight)
            head.output.weight /= torch.cat([head(level) for level in model.levels(images)], dim=1).std()
        model.classification_head.output.bias.fill_(-3)  # so that few scores are high
    wanted = the_same_both_ways(model, images, threshold)
    assert (wanted.labels >= 0).any() == (threshold < 0.9)


def test_with_an_iou_branch_a_class_below_the_threshold_may_be_a_detection():
    """Its score is the root of the class's times the IoU: 0.44 of 0.2 and nearly 1."""
    torch.manual_seed(1)
    model = small_network(3, iou_branch=True).eval().double()
    with torch.no_grad():
        torch.nn.init.normal_(model.regression_head.output.weight)
        torch.nn.init.normal_(model.classification_head.output.weight, std=1e-3)
        model.regression_head.output.bias.view(-1, 5)[:, 4] = 5
        model.classification_head.output.bias.fill_(math.log(0.2 / 0.8))
    wanted = the_same_both_ways(model, torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8), 0.3)
    assert wanted.scores.max() > 0.4


def test_in_bfloat16_no_detection_is_missed_by_a_rounded_limit():
    """The limit lies between two numbers of bfloat16, and all logits have the value of the upper one."""
    torch.manual_seed(1)
    model = small_network(3).eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.regression_head.output.weight, std=1e-2)
        model.classification_head.output.weight.zero_()
        model.classification_head.output.bias.fill_(0.75390625)
    images = torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        the_same_both_ways(model, images, 1 / (1 + math.exp(-0.7535)))

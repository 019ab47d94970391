import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou_loss

from retinanet.detector import focal_loss
from retinanet.detector.anchors import anchors_for
from retinanet.detector.atss import match_atss
from retinanet.detector.boxes import decode, encode
from retinanet.detector.loss import assign_targets, detection_loss, loss_of_assigned
from retinanet.detector.matching import match_anchors
from retinanet.detector.settings import BOX_LOSSES, MATCHERS, LossSettings
from retinanet.detector.structures import CROWD, Predictions, Targets

ANCHORS = anchors_for(64, 64, torch.device("cpu"))


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_loss(predictions, anchors, targets, alpha=0.25, gamma=2.0, beta=1 / 9):
    """Image by image and anchor by anchor, in float64."""
    classification, regression = [], []
    for logits, deltas, boxes, labels in zip(*predictions, *targets, strict=True):
        boxes, labels = boxes[labels >= 0].double(), labels[labels >= 0]
        focal, smooth, num_foreground = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
        for row, anchor in enumerate(anchors.double()):
            overlaps = [overlap(anchor.tolist(), box) for box in boxes.tolist()]
            best = max(range(len(overlaps)), key=overlaps.__getitem__) if overlaps else None
            best_overlap = overlaps[best] if overlaps else 0
            if 0.4 <= best_overlap < 0.5:
                continue
            wanted = torch.zeros(logits.shape[1], dtype=torch.float64)
            if best_overlap >= 0.5:
                num_foreground += 1
                wanted[labels[best]] = 1
                error = (deltas[row].double() - encode(boxes[best], anchor)).abs()
                smooth = smooth + torch.where(error < beta, error**2 / (2 * beta), error - beta / 2).mean()
            score = logits[row].double().sigmoid()
            right = torch.where(wanted == 1, score, 1 - score).clamp(min=1e-30)
            weight = torch.where(wanted == 1, alpha, 1 - alpha)
            focal = focal + (weight * (1 - right) ** gamma * -right.log()).sum()
        classification.append(focal / max(1, num_foreground))
        regression.append(smooth / max(1, num_foreground))
    return torch.stack(classification).mean(), torch.stack(regression).mean()


def random_case(seed, num_classes=3, num_images=3):
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (num_images,), generator=draw)
    boxes, labels = torch.zeros(num_images, 4, 4), torch.full((num_images, 4), -1)
    for image, count in enumerate(counts.tolist()):
        corner = torch.rand(count, 2, generator=draw) * 30
        boxes[image, :count] = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=draw) * 40], dim=1)
        labels[image, :count] = torch.randint(0, num_classes, (count,), generator=draw)
    logits = torch.randn(num_images, len(ANCHORS), num_classes, generator=draw) * 3
    deltas = torch.randn(num_images, len(ANCHORS), 4, generator=draw)
    return Predictions(logits.requires_grad_(), deltas.requires_grad_()), Targets(boxes, labels)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(0.25, 2.0, 1 / 9), (0.5, 0.0, 1.0), (0.9, 1.5, 0.01)]),
    st.sampled_from([(True, 1000), (False, 2**30)]),  # as on a CPU, a GPU
)
def test_equals_its_slow_twin_with_gradients(seed, numbers, way):
    alpha, gamma, beta = numbers
    predictions, targets = random_case(seed)
    sparse, terms_at_a_time = way
    assignment = assign_targets(ANCHORS, targets, 3, sparse=sparse)
    with patch.object(focal_loss, "TERMS_ON_CPU", terms_at_a_time):
        fast = loss_of_assigned(predictions, assignment, LossSettings(alpha, gamma, beta))
        fast_grads = torch.autograd.grad(sum(fast), predictions)
    slow = slow_loss(predictions, ANCHORS, targets, alpha, gamma, beta)
    slow_grads = torch.autograd.grad(sum(slow), predictions, allow_unused=True, materialize_grads=True)
    for got, wanted in zip((*fast, *fast_grads), (*slow, *slow_grads), strict=True):
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-4, atol=1e-6)


def test_background_image_counts_in_the_mean():
    predictions, targets = random_case(3, num_images=1)
    empty = Targets(torch.zeros(1, 1, 4), torch.full((1, 1), -1))
    alone = detection_loss(predictions, ANCHORS, targets)
    background = detection_loss(predictions, ANCHORS, empty)
    assert background.regression == 0
    assert background.classification > 0
    padded = Targets(
        torch.cat([targets.boxes, torch.zeros(1, 4, 4)]), torch.cat([targets.labels, torch.full((1, 4), -1)])
    )
    doubled = Predictions(*(torch.cat([part, part]) for part in predictions))
    both = detection_loss(doubled, ANCHORS, padded)
    torch.testing.assert_close(both.classification, (alone.classification + background.classification) / 2)
    torch.testing.assert_close(both.regression, alone.regression / 2)


def test_one_anchor_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    targets = Targets(anchors[None], torch.tensor([[1]]))
    predictions = Predictions(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 0, 0, 1]]]))
    losses = detection_loss(predictions, anchors, targets)
    # (0.25 + 0.75) x 0.5^2 x ln 2, and the mean over four coordinates of an error of 1 less half of 1/9.
    assert losses.classification.item() == pytest.approx(0.25 * math.log(2))
    assert losses.regression.item() == pytest.approx((1 - 1 / 18) / 4)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_logits_stay_finite(size):
    predictions, targets = random_case(1)
    big = Predictions((predictions.logits.detach().sign() * size).requires_grad_(), predictions.deltas)
    losses = detection_loss(big, ANCHORS, targets)
    grads = torch.autograd.grad(sum(losses), big)
    assert all(torch.isfinite(value).all() for value in (*losses, *grads))


def test_half_precision_predictions_are_summed_in_float32():
    predictions, targets = random_case(2)
    halves = Predictions(*(part.detach().bfloat16() for part in predictions))
    losses = detection_loss(halves, ANCHORS, targets)
    wanted = detection_loss(Predictions(*(part.float() for part in halves)), ANCHORS, targets)
    assert losses.classification.dtype == torch.float32
    assert losses == wanted


def focal_gradient_in_float64(logits, targets):
    """By autograd, from one-hot targets: the gradient of the classification loss, [B, A, C]."""
    exact = logits.detach().double().requires_grad_()
    matches = match_anchors(ANCHORS, targets)
    wanted = torch.zeros_like(exact, dtype=torch.bool)
    for image, row in matches.foreground.nonzero().tolist():
        wanted[image, row, targets.labels[image, matches.objects[image, row]]] = True
    scores = exact.sigmoid()
    right = torch.where(wanted, scores, 1 - scores)
    terms = torch.where(wanted, 0.25, 0.75) * (1 - right) ** 2 * -right.log()
    counts = (matches.foreground | matches.background)[..., None]
    per_image = (terms * counts).sum(dim=(1, 2)) / matches.foreground.sum(dim=1).clamp(min=1)
    return torch.autograd.grad(per_image.mean(), exact)[0], wanted


@pytest.mark.parametrize("score", [0.01, 0.1, 0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("num_images", [2, 16])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1), (torch.bfloat16, 1), (torch.float16, 65536)])
@pytest.mark.parametrize("sparse", [True, False])
def test_focal_gradient_is_within_a_percent_whatever_the_logits_are_in(score, num_images, dtype, scale, sparse):
    predictions, targets = random_case(7, num_images=num_images)
    logits = math.log(score / (1 - score)) + predictions.logits.detach() / 30
    logits = logits.to(dtype).requires_grad_()
    wanted, is_object = focal_gradient_in_float64(logits, targets)
    assignment = assign_targets(ANCHORS, targets, 3, sparse=sparse)
    losses = loss_of_assigned(Predictions(logits, predictions.deltas), assignment)
    (got,) = torch.autograd.grad(losses.classification * scale, logits)
    assert got.dtype == dtype
    for part in (is_object, ~is_object):
        assert part.any()
        torch.testing.assert_close(got[part].double() / scale, wanted[part], rtol=0.01, atol=0)


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_all_rows_and_compiled_equal_foreground_rows_only(matcher, box_loss):
    predictions, targets = random_case(4, num_images=4)
    targets.labels[0, :2], targets.boxes[0, :2] = CROWD, torch.tensor([5.0, 5, 60, 60])
    settings = LossSettings(matcher=matcher, box_loss=box_loss, ignore_crowds=True)
    torch._dynamo.reset()
    compiled = torch.compile(loss_of_assigned, fullgraph=True, dynamic=False, backend="eager")
    results = []
    for sparse, way in ((True, loss_of_assigned), (False, loss_of_assigned), (False, compiled)):
        losses = way(predictions, assign_targets(ANCHORS, targets, 3, settings, sparse=sparse, size=(64, 64)), settings)
        results.append((*losses, *torch.autograd.grad(sum(losses), predictions)))
    assert results[0][1] > 0
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@pytest.mark.parametrize("matcher", MATCHERS)
def test_giou_is_the_mean_over_foreground_anchors_then_over_images(matcher):
    predictions, targets = random_case(5, num_images=4)
    settings = LossSettings(matcher=matcher, box_loss="giou")
    matches = match_atss(ANCHORS, targets, (64, 64))
    if matcher != "atss":
        matches = match_anchors(ANCHORS, targets, low_quality=matcher == "low_quality")
    means = []
    for deltas, boxes, objects, foreground in zip(predictions.deltas, targets.boxes, *matches[:2], strict=True):
        rows = foreground.nonzero().squeeze(1)
        found = decode(deltas[rows], ANCHORS[rows])
        losses = 2 * generalized_box_iou_loss(found, boxes[objects[rows]])
        means.append(losses.mean() if len(rows) else losses.sum())
    wanted = torch.stack(means).mean()
    got = detection_loss(predictions, ANCHORS, targets, settings, (64, 64)).regression
    torch.testing.assert_close(got, wanted)
    both = (torch.autograd.grad(loss, predictions.deltas)[0] for loss in (got, wanted))
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_rows_without_an_object_give_no_gradient_wherever_their_boxes_are(box_loss):
    settings = LossSettings(box_loss=box_loss)
    predictions, targets = random_case(6)
    assignment = assign_targets(ANCHORS, targets, 3, settings, sparse=False)
    idle = assignment.row_weights == 0
    deltas = predictions.deltas.detach().clone()
    # The largest that float16 can say.
    deltas.view(-1, 4)[idle] = torch.tensor([6e4, -6e4, 6e4, -6e4])
    loss = loss_of_assigned(predictions._replace(deltas=deltas.requires_grad_()), assignment, settings).regression
    assert loss == loss_of_assigned(predictions, assignment, settings).regression
    loss.backward()
    gradient = deltas.grad.view(-1, 4)
    assert torch.isfinite(gradient).all()
    assert not gradient[idle].any()
    assert gradient[~idle].any()

"""The two scores that know a box's IoU: the quality focal loss, and the branch that predicts the IoU."""

import pytest
import torch
from detector.test_loss import ANCHORS, overlap, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from retinanet.detector.boxes import decode, iou_of_deltas
from retinanet.detector.detect import find_candidates
from retinanet.detector.loss import assign_targets, loss_of_assigned
from retinanet.detector.matching import match_anchors
from retinanet.detector.settings import LossSettings
from retinanet.detector.structures import Predictions, Targets


def with_branch(predictions, seed):
    """Predictions whose deltas have the logit of an IoU."""
    draw = torch.Generator().manual_seed(seed)
    iou_logits = torch.randn(*predictions.deltas.shape[:2], 1, generator=draw) * 2
    deltas = torch.cat([predictions.deltas.detach(), iou_logits], dim=2)
    return Predictions(predictions.logits, deltas.requires_grad_())


def slow_losses(predictions, targets, gamma):
    """The quality focal loss, and the mean cross-entropy of the IoU's logit: anchor by anchor, in float64."""
    classification, branch = [], []
    for image, labels in enumerate(targets.labels):
        matches = match_anchors(ANCHORS, Targets(targets.boxes[[image]], labels[None]))
        terms, entropies = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for row, anchor in enumerate(ANCHORS.double()):
            if not (matches.foreground[0, row] or matches.background[0, row]):
                continue
            wanted = torch.zeros(predictions.logits.shape[2], dtype=torch.float64)
            if matches.foreground[0, row]:
                found = matches.objects[0, row]
                box = decode(predictions.deltas[image, row, :4].detach().double(), anchor)
                wanted[labels[found]] = overlap(box.tolist(), targets.boxes[image, found].tolist())
                logit = predictions.deltas[image, row, 4].double()
                entropies = entropies + F.binary_cross_entropy_with_logits(logit, wanted[labels[found]])
            logits = predictions.logits[image, row].double()
            entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            terms = terms + ((logits.sigmoid() - wanted).abs() ** gamma * entropy).sum()
        count = max(1, int(matches.foreground.sum()))
        classification.append(terms / count)
        branch.append(entropies / count)
    return torch.stack(classification).mean(), torch.stack(branch).mean()


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2.0, 1.0, 0.0]), st.booleans())
def test_both_losses_equal_their_slow_twins_with_gradients(seed, gamma, sparse):
    predictions, targets = random_case(seed)
    predictions = with_branch(predictions, seed)
    assignment = assign_targets(ANCHORS, targets, 3, sparse=sparse)
    numbers = LossSettings(gamma=gamma, class_loss="quality")
    fast = loss_of_assigned(predictions, assignment, numbers)
    plain = loss_of_assigned(predictions._replace(deltas=predictions.deltas[..., :4]), assignment, numbers)
    assert plain.classification == fast.classification
    found = fast.classification, fast.regression - plain.regression
    wanted = slow_losses(predictions, targets, gamma)
    for got, own in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.double(), own, rtol=1e-4, atol=1e-6)
    of_logits, of_deltas = torch.autograd.grad(sum(found), predictions)
    own_logits, own_deltas = torch.autograd.grad(sum(wanted), predictions, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(of_logits, own_logits, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(of_deltas, own_deltas, rtol=1e-4, atol=1e-6)  # none to the boxes themselves


def test_bfloat16_is_within_its_own_rounding():
    predictions, targets = random_case(5)
    predictions = with_branch(predictions, 5)
    assignment = assign_targets(ANCHORS, targets, 3, sparse=True)
    numbers = LossSettings(class_loss="quality", box_loss="giou")
    rounded = Predictions(*(part.detach().bfloat16().requires_grad_() for part in predictions))
    exact = Predictions(*(part.detach().float().requires_grad_() for part in rounded))
    found, wanted = (loss_of_assigned(some, assignment, numbers) for some in (rounded, exact))
    for got, own in zip(found, wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, own)
    grads = (torch.autograd.grad(sum(some), of) for some, of in ((found, rounded), (wanted, exact)))
    for got, own in zip(*grads, strict=True):
        assert (got.float() - own).norm() < 0.01 * own.norm()


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_the_iou_of_deltas_is_that_of_the_boxes_they_make(seed):
    deltas, wanted = torch.randn(2, len(ANCHORS), 4, generator=torch.Generator().manual_seed(seed)).double()
    rows = [0, 100, -1]
    pairs = zip(decode(deltas, ANCHORS.double())[rows], decode(wanted, ANCHORS.double())[rows], strict=True)
    slow = torch.tensor([overlap(one.tolist(), other.tolist()) for one, other in pairs], dtype=torch.float64)
    torch.testing.assert_close(iou_of_deltas(deltas, wanted)[rows], slow, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_candidates_rank_by_the_geometric_mean_of_score_and_iou(precision):
    draw = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, len(ANCHORS), 3, generator=draw) * 3 - 2).to(precision)
    deltas = torch.randn(2, len(ANCHORS), 5, generator=draw).to(precision)
    found = find_candidates(Predictions(logits, deltas), ANCHORS, torch.tensor([[64, 64], [60, 50]]), 40)
    scores = (logits.double().sigmoid() * deltas[..., 4:].double().sigmoid()).sqrt().flatten(1)
    wanted = scores.sort(dim=1, descending=True)
    torch.testing.assert_close(found.scores.double(), wanted.values[:, :40], rtol=1e-5, atol=0)
    assert torch.equal(found.labels, wanted.indices[:, :40] % 3)
    top = wanted.indices[0, 0] // 3
    assert torch.equal(found.boxes[0, 0], decode(deltas[0, top, :4].float(), ANCHORS[top]).clamp(0, 64))

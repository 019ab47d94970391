import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou_loss

from retinanet.detector.boxes import decode, encode, giou_loss


def random_boxes(num, draw):
    corners = torch.rand(num, 2, generator=draw, dtype=torch.float64) * 100
    return torch.cat([corners, corners + 1 + torch.rand(num, 2, generator=draw, dtype=torch.float64) * 100], dim=1)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 3.0, 30.0]))
def test_is_torchvisions_of_the_decoded_boxes_with_its_gradient(seed, spread):
    draw = torch.Generator().manual_seed(seed)
    anchors, boxes = random_boxes(20, draw), random_boxes(20, draw)
    deltas = torch.randn(20, 4, generator=draw, dtype=torch.float64) * spread
    deltas.requires_grad_()
    got = giou_loss(deltas, encode(boxes, anchors))
    wanted = generalized_box_iou_loss(decode(deltas, anchors), boxes)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)  # torchvision adds 1e-7 to what it divides by
    grads = [torch.autograd.grad(loss.sum(), deltas)[0] for loss in (got, wanted)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_gradient_is_that_of_small_steps():
    draw = torch.Generator().manual_seed(0)
    deltas, wanted = torch.randn(2, 30, 4, generator=draw, dtype=torch.float64) * 4
    assert torch.autograd.gradcheck(giou_loss, (deltas.requires_grad_(), wanted))


@pytest.mark.parametrize(
    ("delta", "loss"),
    [
        ((0, 0, 0, 0), 0.0),
        ((5, 0, 0, 0), 1 - 1 / 3),  # half a side to the right: 0.5 of 1.5, and nothing else around
        ((10, 0, 0, 0), 1.0),  # side by side
        ((20, 0, 0, 0), 1 + 1 / 3),  # one side between them
        ((10, 10, 0, 0), 1 + 2 / 4),  # corner to corner
    ],
)
def test_by_hand(delta, loss):
    assert giou_loss(torch.tensor(delta).float(), torch.zeros(4)).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e10, 1e38])
def test_boxes_far_away_have_a_finite_loss_and_gradient(size):
    draw = torch.Generator().manual_seed(0)
    deltas = (torch.randint(-1, 2, (200, 4), generator=draw) * size).requires_grad_()
    losses = giou_loss(deltas, torch.randn(200, 4, generator=draw))
    assert ((losses >= 0) & (losses <= 2)).all()
    losses.sum().backward()
    assert torch.isfinite(deltas.grad).all()


def test_a_box_apart_is_drawn_nearer():
    deltas = torch.tensor([30.0, -20, 0, 0], requires_grad=True)
    giou_loss(deltas, torch.zeros(4)).backward()
    assert deltas.grad[0] > 0 > deltas.grad[1]

import pytest
import torch
from support.crowded_candidates import crowded

from retinanet.detector import detect
from retinanet.detector.detect import survivors_by_image
from retinanet.detector.structures import Candidates
from retinanet.fast import suppression
from retinanet.fast.suppression import suppress_on_device, survivors_at_once


@pytest.fixture
def calls(monkeypatch):
    """The numbers of candidates in each call of torchvision's NMS."""
    counts, nms = [], suppression.nms
    monkeypatch.setattr(suppression, "nms", lambda boxes, *others: counts.append(len(boxes)) or nms(boxes, *others))
    return counts


@pytest.mark.parametrize(
    ("num_images", "num_candidates", "expected"),
    [(16, 1000, [16000]), (17, 1000, [16000, 1000]), (5, 6000, [12000, 12000, 6000]), (2, 16384, [16384] * 2)],
)
def test_a_call_on_a_gpu_has_few_candidates(calls, num_images, num_candidates, expected):
    arguments = crowded(num_images, num_candidates)
    kept = survivors_at_once(*arguments)
    assert calls == expected
    assert torch.equal(kept & arguments[1], survivors_by_image(*arguments))


@pytest.mark.parametrize(("num_candidates", "expected"), [(16384, "at_once"), (16385, "by_image")])
def test_a_gpu_works_on_more_candidates_than_a_call_may_have_image_by_image(monkeypatch, num_candidates, expected):
    chosen = []
    monkeypatch.setattr(suppression, "survivors_at_once", lambda *some: chosen.append("at_once") or some[1])
    monkeypatch.setattr(detect, "survivors_by_image", lambda *some: chosen.append("by_image") or some[1])
    boxes = torch.zeros(2, num_candidates, 4, device="meta")
    candidates = Candidates(boxes, boxes[..., 0], boxes[..., 0].long())
    suppress_on_device(candidates, torch.zeros(2, 2, device="meta"))
    assert chosen == [expected]

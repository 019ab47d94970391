import torch
from torchvision.ops import box_iou

from retinanet import matching
from retinanet.anchors import anchors_for
from retinanet.matching import match
from retinanet.structures import Targets


def test_borders_of_foreground_and_background():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    # An object inside of the anchor has an IoU of its area / 100.
    heights = [10.0, 5.0, 4.99, 4.0, 3.99, 0.0]
    targets = Targets(
        torch.tensor([[[0.0, 0, 10, height]] for height in heights]), torch.zeros(len(heights), 1, dtype=torch.int64)
    )
    matches = match(anchors, targets)
    assert matches.foreground[:, 0].tolist() == [True, True, False, False, False, False]
    assert matches.background[:, 0].tolist() == [False, False, False, False, True, True]


def test_nothing_is_forced_and_padding_matches_nothing():
    anchors = torch.tensor([[0.0, 0, 32, 32], [-16.0, -16, 16, 16]])
    targets = Targets(torch.tensor([[[0.0, 0, 8, 8], [0.0, 0, 0, 0]]]), torch.tensor([[0, -1]]))
    matches = match(anchors, targets)
    assert not matches.foreground.any()
    assert matches.background.all()


def test_the_object_with_the_largest_overlap_is_taken():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    targets = Targets(torch.tensor([[[0.0, 0, 10, 6], [0.0, 0, 10, 9], [0.0, 0, 0, 0]]]), torch.tensor([[0, 1, -1]]))
    assert match(anchors, targets).objects.tolist() == [[1]]


def test_equals_all_overlaps_at_once_however_many_fit(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    anchors = anchors_for(96, 160, torch.device("cpu"))
    corners = torch.rand(3, 5, 2, generator=draw) * 80
    boxes = torch.cat([corners, corners + torch.rand(3, 5, 2, generator=draw) * 80], dim=2)
    boxes[1, 2:] = 0
    boxes[2, 3] = boxes[2, 1]  # equal overlaps: the first is taken
    targets = Targets(boxes, torch.zeros(3, 5, dtype=torch.int64))
    best, objects = torch.stack([box_iou(image_boxes, anchors) for image_boxes in boxes]).max(dim=1)
    for at_a_time in (1, 1000, 2**30):
        monkeypatch.setattr(matching, "OVERLAPS_ON_CPU", at_a_time)
        matches = match(anchors, targets)
        assert torch.equal(matches.objects, objects)
        assert torch.equal(matches.foreground, best >= 0.5)
        assert torch.equal(matches.background, best < 0.4)
    assert matches.foreground.any()

"""Compares networks that are loaded from published state dicts with twins of the published networks."""

import os

import pytest
import torch
from support.published import Odtk, Torchvision, Yhenon, randomised

from retinanet.checkpoints.pretrained_detector import architecture_of, categories, load_detector
from retinanet.checkpoints.published_detectors import recognised
from retinanet.checkpoints.state_dicts import state_in
from retinanet.detector.anchors import DEFAULT_SHAPES, anchors_for
from retinanet.detector.boxes import clip, decode
from retinanet.detector.model import RetinaNet

DRAWS = 100 if os.environ.get("RETINANET_LONG_TESTS") == "1" else 2
CPU = torch.device("cpu")
COCO = [name for name in categories() if name not in ("__background__", "N/A")]
ROWS_OF_COCO = [row for row, name in enumerate(categories()) if name in COCO]


def loaded_from(content, names=COCO, shapes=DEFAULT_SHAPES):
    """Builds the network that fits `content`, the content of a file, and fills it."""
    detector = recognised(state_in(content, "file.pth"), content, "file.pth")
    network = RetinaNet(architecture_of(detector, shapes, "file.pth"), len(names)).eval()
    return network, load_detector(network, names, detector, "file.pth")


@torch.no_grad()
def outputs_of(network, images):
    """Returns the scores [A, C] and boxes [A, 4] of a network, in the order of its anchors."""
    logits, deltas = network.double()(images)
    height, width = images.shape[2:]
    boxes = decode(deltas, anchors_for(height, width, CPU, network.architecture.anchors).double())
    return logits[0].sigmoid(), clip(boxes, torch.tensor([[height, width]]))[0]


def in_our_order(values, kinds):
    """Sorts the anchors of each cell by ratio, then by size, as ours are."""
    order = sorted(range(len(kinds)), key=kinds.__getitem__)
    return values.unflatten(0, (-1, len(kinds)))[:, order].flatten(0, 1)


def images_of(seed, height=128, width=256):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=draw)


def compared(twin, content, images, rows=slice(None)):
    """Returns the largest difference of scores, and our boxes and the twin's."""
    network, _ = loaded_from(content)
    scores, boxes = outputs_of(network, images)
    their_scores, their_boxes = (in_our_order(values, twin.kinds) for values in twin.outputs(images))
    assert their_scores.std() > 0.02  # random weights, so that an anchor in another's place would be seen
    assert (their_boxes.diff(dim=0).abs() > 1e-2).any(dim=1).float().mean() > 0.5
    return (scores - their_scores[:, rows]).abs().max().item(), boxes, their_boxes


@pytest.mark.parametrize("seed", range(DRAWS))
def test_yhenons_scores_and_boxes(seed):
    twin = randomised(Yhenon(), seed)
    difference, boxes, wanted = compared(twin, twin.state_dict(), images_of(seed, 64, 160))
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1e-3
    assert not loaded_from(twin.state_dict())[0].architecture.level_code


@pytest.mark.parametrize("seed", range(DRAWS))
@pytest.mark.parametrize("rounded", [False, True])
def test_odtks_scores_and_boxes(seed, rounded):
    twin = randomised(Odtk(rounded=rounded), seed)
    difference, boxes, wanted = compared(twin, twin.checkpoint(), images_of(seed))
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1 + 1e-3
    # In its result files, a box is x2 - x1 + 1 wide. (Boxes beyond an edge are clipped to a pixel there, here to none.)
    wanted[:, 2:] += 1
    inside = (boxes[:, 2:] >= 1).all(dim=1) & (boxes[:, :2] <= torch.tensor([255, 127])).all(dim=1)
    assert inside.sum() > 100
    assert (boxes - wanted)[inside].abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(DRAWS))
@pytest.mark.parametrize(("version", "frozen"), [(1, False), (1, True), (2, False)])
def test_torchvisions_scores_and_boxes(seed, version, frozen):
    twin = randomised(Torchvision(version, frozen=frozen), seed)
    difference, boxes, wanted = compared(twin, twin.state_dict(), images_of(seed), ROWS_OF_COCO)
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1e-3

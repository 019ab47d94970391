import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crowded_candidates import crowded
from torchvision.ops import box_iou

from retinanet.detector import detect as module
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import decode
from retinanet.detector.detect import (
    candidates_in,
    detect,
    find_candidates,
    find_regions,
    survivors_at_once,
    survivors_by_image,
)
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates, Predictions

ANCHORS = anchors_for(64, 96, torch.device("cpu"))
SIZES = torch.tensor([[60, 90], [64, 96], [33, 41]])


def slow_detect(predictions, anchors, sizes, threshold, num_candidates, nms_iou, max_detections):
    """Image by image, class by class, box by box."""
    images = []
    for logits, deltas, (height, width) in zip(*predictions, sizes.tolist(), strict=True):
        candidates = [
            (score, row, label)
            for row, scores in enumerate(logits.sigmoid().tolist())
            for label, score in enumerate(scores)
        ]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[:num_candidates]
        found = []
        for label in range(logits.shape[1]):
            kept = []
            for score, row, own in candidates:
                x1, y1, x2, y2 = decode(deltas[row], anchors[row]).tolist()
                box = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
                if own != label or score <= threshold or box[2] <= box[0] or box[3] <= box[1]:
                    continue
                if all(box_iou(torch.tensor([box]), torch.tensor([other]))[0, 0] <= nms_iou for _, other in kept):
                    kept.append((score, box))
            found += [(score, box, label) for score, box in kept]
        images.append(sorted(found, key=lambda one: -one[0])[:max_detections])
    return images


def random_predictions(seed, num_classes):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(SIZES), len(ANCHORS), num_classes, generator=draw) * 2 - 4
    deltas = torch.randn(len(SIZES), len(ANCHORS), 4, generator=draw) * 2
    return Predictions(logits, deltas)


@pytest.mark.parametrize("way", [survivors_by_image, survivors_at_once])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), num_classes=st.sampled_from([1, 4]))
def test_equals_its_slow_twin(way, seed, num_classes):
    numbers = {"threshold": 0.05, "num_candidates": 120, "nms_iou": 0.5, "max_detections": 20}
    predictions = random_predictions(seed, num_classes)
    with pytest.MonkeyPatch.context() as patch:  # each way of suppressing in turn, whatever the device
        patch.setattr(module, "survivors_by_image", way)
        detections = detect(predictions, ANCHORS, SIZES, DetectionSettings(**numbers))
    slow = slow_detect(predictions, ANCHORS, SIZES, **numbers)
    for image, found in enumerate(slow):
        count = int((detections.labels[image] >= 0).sum())
        assert count == len(found) > 0
        assert detections.labels[image, :count].tolist() == [label for _, _, label in found]
        torch.testing.assert_close(detections.scores[image, :count], torch.tensor([score for score, _, _ in found]))
        torch.testing.assert_close(
            detections.boxes[image, :count], torch.tensor([box for _, box, _ in found]), rtol=1e-5, atol=1e-3
        )
        assert (detections.scores[image, count:] == 0).all()
        assert (detections.labels[image, count:] == -1).all()
        assert (detections.boxes[image, count:] == 0).all()


def test_what_is_too_much_for_a_gpu_goes_to_the_cpu(monkeypatch):
    class OnGpu(torch.Tensor):
        """Notes that it is brought to the CPU."""

        brought = 0

        def cpu(self):
            OnGpu.brought += 1
            return super().cpu()

    candidates, *others = crowded(1, 300)
    expected = survivors_by_image(candidates, *others)
    on_gpu = candidates._replace(boxes=candidates.boxes.as_subclass(OnGpu))
    assert torch.equal(survivors_by_image(on_gpu, *others), expected)
    assert OnGpu.brought == 0
    monkeypatch.setattr(module, "MOST_ON_GPU", 100)
    assert torch.equal(survivors_by_image(on_gpu, *others), expected)
    assert OnGpu.brought == 1


def test_shifts_stay_exact_with_many_groups_of_large_images():
    """16 images x 80 classes x 1024 px: a float32 shift would round these boxes to 1/8 pixel and change the NMS."""
    anchors = torch.tensor([[1000.0, 1000, 1001, 1001], [1000.06, 1000, 1001.06, 1001]])
    logits = torch.full((16, 2, 80), -9.0)
    logits[:, :, 79] = torch.tensor([3.0, 2.0])
    predictions = Predictions(logits, torch.zeros(16, 2, 4))
    scores, labels = logits[:, :, 79].sigmoid(), torch.full((16, 2), 79)
    iou = box_iou(anchors[:1], anchors[1:])[0, 0].item()
    sizes = torch.full((16, 2), 1024)
    for nms_iou, expected in ((iou - 1e-3, 1), (iou + 1e-3, 2)):
        candidates = Candidates(anchors.expand(16, 2, 4), scores, labels)
        kept = survivors_at_once(candidates, scores > 0, torch.tensor(1025.0).double(), nms_iou)
        assert kept.sum(dim=1).tolist() == [expected] * 16
        found = detect(predictions, anchors, sizes, DetectionSettings(nms_iou=nms_iou))
        assert (found.labels >= 0).sum(dim=1).tolist() == [expected] * 16


def test_nothing_above_the_threshold():
    predictions = Predictions(torch.full((2, len(ANCHORS), 3), -9.0), torch.zeros(2, len(ANCHORS), 4))
    detections = detect(predictions, ANCHORS, SIZES[:2])
    assert (detections.labels == -1).all()
    assert (detections.scores == 0).all()


def test_an_overlap_of_exactly_the_limit_is_kept():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])
    predictions = Predictions(torch.tensor([[[2.0], [1.0]]]), torch.zeros(1, 2, 4))
    detections = detect(predictions, anchors, torch.tensor([[64, 64]]), DetectionSettings(nms_iou=0.5))
    assert (detections.labels >= 0).sum() == 2


def test_a_box_outside_of_its_image_is_dropped():
    anchors = torch.tensor([[50.0, 0, 60, 10], [0.0, 0, 10, 10]])
    predictions = Predictions(torch.tensor([[[2.0], [1.0]]]), torch.zeros(1, 2, 4))
    detections = detect(predictions, anchors, torch.tensor([[64, 50]]))
    assert detections.boxes[0].tolist() == [[0, 0, 10, 10], [0, 0, 0, 0]]


def test_values_that_are_not_finite_are_no_detections():
    predictions = Predictions(torch.full((1, len(ANCHORS), 2), float("nan")), torch.zeros(1, len(ANCHORS), 4))
    assert (detect(predictions, ANCHORS, SIZES[:1]).labels == -1).all()


@pytest.mark.parametrize("num_outputs", [4, 5])
@pytest.mark.parametrize("num_regions", [20, 10**6])
def test_the_best_pairs_of_regions_and_classes_are_the_candidates(num_outputs, num_regions):
    logits, deltas = random_predictions(3, 4)
    more = torch.randn(*deltas.shape[:2], num_outputs - 4, generator=torch.Generator().manual_seed(1))
    predictions = Predictions(logits, torch.cat([deltas, more], dim=2))
    expected = find_candidates(predictions, ANCHORS, SIZES, 20)  # of at most 20 anchors, which are then among the best
    regions = find_regions(predictions, ANCHORS, SIZES, num_regions)
    assert regions.scores.shape == (len(SIZES), min(num_regions, len(ANCHORS)), 4)
    for part, other in zip(candidates_in(regions, 20), expected, strict=True):
        torch.testing.assert_close(part, other)

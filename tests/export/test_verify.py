import pytest
import torch

from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Detections
from retinanet.export.verify import Match, match


def detections(*rows: tuple) -> Detections:
    """Rows (left, score, label), each a box of 10 pixels."""
    lefts, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    left = torch.tensor(lefts, dtype=torch.float32)
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], dim=1)
    return Detections(boxes, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


ONE = (5.0, 0.9, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ([], [], Match(0, 0, 0)),
        ([ONE], [ONE], Match(0, 0, 0)),
        ([ONE], [], Match(0, 0, 1)),
        ([], [ONE], Match(0, 0, 1)),
        ([ONE], [(5.0, 0.9, 2)], Match(0, 0, 2)),  # another class
        ([ONE], [(5.5, 0.9, 1)], Match(0.5, 0, 0)),
        ([ONE], [(5.0, 0.89, 1)], Match(0, 0.01, 0)),
        ([ONE], [(50.0, 0.9, 1)], Match(0, 0, 2)),  # somewhere else
        ([ONE, (9.0, 0.50005, 1)], [ONE], Match(0, 0, 0)),  # rounding decides at the threshold
        ([ONE, (90.0, 0.6, 1)], [ONE], Match(0, 0, 1)),
        ([(5.0, 0.9, 1), (5.0, 0.7, 2)], [(5.0, 0.7, 2), (5.0, 0.9, 1)], Match(0, 0, 0)),  # another order
    ],
)
def test_match(ours, theirs, wanted):
    got = match(detections(*ours), detections(*theirs), DetectionSettings(threshold=0.5))

    assert got.num_unmatched == wanted.num_unmatched
    assert got[:2] == pytest.approx(wanted[:2], abs=1e-5)


def test_of_a_full_image_the_last_may_differ():
    settings = DetectionSettings(threshold=0.5, max_detections=2)

    got = match(detections(ONE, (50.0, 0.8, 1)), detections(ONE, (90.0, 0.8, 1)), settings)

    assert got.num_unmatched == 0

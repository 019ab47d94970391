from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retinanet.coco.results import Found, rows_of
from retinanet.detector.structures import Detections
from retinanet.evaluation.detect_images import found_in_batch
from retinanet.evaluation.detect_set import found_in_set


def test_rows_are_in_original_pixels_with_category_ids():
    detections = Detections(
        boxes=torch.tensor([[[10.0, 20, 30, 60], [0, 0, 0, 0]], [[0, 0, 8, 8], [4, 4, 8, 12]]]),
        scores=torch.tensor([[0.5, 0], [0.9, 0.25]]),
        labels=torch.tensor([[1, -1], [0, 1]]),
    )
    scales = torch.tensor([[2.0, 0.5], [1, 1]])  # (vertical, horizontal)
    annotations = SimpleNamespace(image_ids=np.array([5, 77]), category_ids=[3, 9], turns=None)
    assert rows_of(found_in_batch(detections, scales, np.array([1, 0])), annotations) == [
        {"image_id": 77, "category_id": 9, "bbox": [20, 10, 40, 20], "score": 0.5},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 8, 8], "score": pytest.approx(0.9)},
        {"image_id": 5, "category_id": 9, "bbox": [4, 4, 4, 8], "score": 0.25},
    ]


def test_by_image_id_and_falling_score_and_ties_as_they_were():
    annotations = SimpleNamespace(image_ids=np.array([7, 2]))
    scores = np.array([0.5, 0.9, 0.75, 0.75, 0.9])
    found = Found(np.array([1, 0, 1, 1, 0]), np.arange(5), scores, np.zeros((5, 4)))
    assert found_in_set([found], annotations).labels.tolist() == [2, 3, 0, 1, 4]

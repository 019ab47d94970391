"""The regions of a set's images, from which come the detections of test-time augmentation with the mirror image."""

import numpy as np
import pytest
import torch
from support.built import small_network

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset
from retinanet.detector.settings import DetectionSettings
from retinanet.evaluation.detect_set import detect_all, found_in_set
from retinanet.evaluation.regions import regions_of_set
from retinanet.evaluation.views import Views


@pytest.mark.parametrize("iou_branch", [False, True])
def test_what_is_detected_is_what_both_views_show(coco_path, iou_branch):
    annotations = load_annotations(coco_path / "train.json")
    dataset = CocoDataset(annotations, coco_path / "images" / "train", 64, 96)
    torch.manual_seed(0)
    network = small_network(random_outputs=True, iou_branch=iou_branch)
    for head in (network.classification_head, network.regression_head):
        torch.nn.init.normal_(head.output.weight, std=0.003)  # so that few scores are 1, and tied
    detection = DetectionSettings(threshold=0.01, num_candidates=10**5)  # all, so that both choose the same
    how = {"device": torch.device("cpu"), "precision": torch.float32, "detection": detection}
    batches = list(regions_of_set(network, dataset, LoaderSettings(3), **how, title="Detection"))
    found = found_in_set([found for _, found in batches], annotations)
    expected = detect_all(network, dataset, LoaderSettings(3), **how, views=Views(flip=True))
    assert found.images.tolist() == expected.images.tolist()
    assert np.allclose(found.scores, expected.scores, atol=1e-5)  # nearly equal ones may be in another order
    for image in range(8):
        box_rows = [
            np.sort((each.boxes @ [1, 10, 100, 1000] + each.labels)[each.images == image]) for each in (found, expected)
        ]
        assert np.allclose(*box_rows, rtol=1e-4)
    images = [each for regions, _ in batches for each in regions]
    assert sorted(each.image for each in images) == [*range(8)]
    for each in images:
        assert each.boxes.shape[0] == each.scores.shape[0]
        detected = found.at(found.images == each.image)
        for label, score, box in zip(detected.labels, detected.scores, detected.boxes, strict=True):
            row = np.abs(each.boxes - box).max(axis=1) + np.abs(each.scores[:, label] - score)
            assert row.min() < 1e-3

"""Finds, in each image of a set, the regions that may contain an object, with their scores for all classes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from retinanet.coco.boxes import boxes_of
from retinanet.coco.results import Found
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset
from retinanet.data.device_feed import on_device
from retinanet.data.transforms import mirrored_boxes
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import per_coordinate
from retinanet.detector.detect import candidates_in, find_regions, suppress
from retinanet.detector.fold import folded_network
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Regions
from retinanet.evaluation.detect_set import batches_of_set, found_in_batch
from retinanet.evaluation.views import mirrored
from retinanet.runtime.device import autocast, searching_algorithms
from retinanet.runtime.resource_errors import DETECTION_ADVICE, memory_explained, named


class ImageRegions(NamedTuple):
    """Holds N regions of an image and their scores for C classes."""

    image: int  # its index in the set
    boxes: np.ndarray  # float64 [N, 4], (left, top, width, height) in original pixels
    scores: np.ndarray  # float32 [N, C]


@torch.no_grad()
def regions_of_set(
    model: RetinaNet,
    dataset: CocoDataset,
    loading: LoaderSettings,
    *,
    device: torch.device,
    precision: torch.dtype,
    detection: DetectionSettings,
    title: str,
) -> Iterator[tuple[list[ImageRegions], Found]]:
    """Yields, for each batch, the regions of each image, and the detections chosen from these regions.

    A region is the predicted box of an anchor. Each image yields `detection.num_candidates` regions, and its mirror
    image yields as many again. Raises UserError if an image can't be read.
    """
    model.eval()
    network = folded_network(model, precision) if device.type == "cuda" else model
    with searching_algorithms(False):  # image shapes vary
        for batch in on_device(batches_of_set(dataset, loading, title), device):
            anchors = anchors_for(*batch.images.shape[2:], device, model.architecture.anchors)
            views = []
            with memory_explained(named(batch.images), DETECTION_ADVICE):
                for images in (batch.images, mirrored(batch.images, batch.sizes)):
                    with autocast(device, precision):
                        predictions = network(images)
                    views.append(find_regions(predictions, anchors, batch.sizes, detection.num_candidates))
                views[1] = views[1]._replace(boxes=mirrored_boxes(views[1].boxes, batch.sizes[:, 1:]))
                regions = Regions(*(torch.cat(parts, dim=1) for parts in zip(*views, strict=True)))
                found = suppress(candidates_in(regions, detection.num_candidates), batch.sizes, detection)
            boxes = boxes_of((regions.boxes.double() / per_coordinate(batch.scales.double())[:, None]).cpu().numpy())
            per_image = zip(batch.rows.tolist(), boxes, regions.scores.cpu().numpy(), strict=True)
            yield [ImageRegions(*each) for each in per_image], found_in_batch(found, batch.scales, batch.rows.numpy())

"""Detects in all images of a data set."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retinanet.coco.annotations import Annotations
from retinanet.coco.boxes import boxes_of
from retinanet.coco.results import Found, joined
from retinanet.data.batches import Batch
from retinanet.data.dataloader import LoaderSettings, evaluation_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.device_feed import BadImages, OneAhead, on_device
from retinanet.detector.boxes import per_coordinate
from retinanet.detector.detect import suppress
from retinanet.detector.fold import folded_network
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Detections
from retinanet.detector.windows import SparseNetwork, can_be_sparse
from retinanet.evaluation.views import ONE_VIEW, Views, predict_views
from retinanet.runtime.device import searching_algorithms
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.resource_errors import DETECTION_ADVICE, memory_explained
from retinanet.runtime.streams import STDOUT


@torch.no_grad()
def detect_all(
    model: RetinaNet,
    dataset: CocoDataset,
    loading: LoaderSettings,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    detection: DetectionSettings = DEFAULT_DETECTION,
    views: Views = ONE_VIEW,
    ranks: Ranks = ALONE,
) -> Found:
    """Returns the detections in all images of `dataset`, by image id and falling score.

    The candidates of all `views` of an image are merged before NMS. The ranks share the images; rank 0 gets all
    detections, the others none. Raises UserError if an image can't be read: no image is skipped silently.
    """
    model.eval()
    batches = OneAhead(on_device(batches_of_set(dataset, loading, "Detection", views=views, ranks=ranks), device))
    network = fastest_form(model, device, precision, detection.threshold)
    merged = predict_views(network, batches, views, detection.num_candidates, device=device, precision=precision)
    parts: list[Found] = []
    suppressed: list[tuple[Detections, Tensor, np.ndarray]] = []  # of the last batch
    with searching_algorithms(False):  # images have many shapes, and the rest of each is a smaller batch
        for candidates, sizes, scales, rows in merged:
            # A GPU works on these predictions now. Meanwhile the host reads the last batch's detections and has the
            # next batch copied: the suppression will make it wait.
            parts += [found_in_batch(*batch) for batch in suppressed]
            batches.fetch()
            batch_size, count = candidates.scores.shape
            with memory_explained(f"the suppression in {batch_size} images, {count} candidates each", DETECTION_ADVICE):
                suppressed = [(suppress(candidates, sizes, detection), scales, rows.numpy())]
    parts += [found_in_batch(*batch) for batch in suppressed]
    return found_in_set([part for of_rank in ranks.gathered(parts) for part in of_rank], dataset.annotations)


def batches_of_set(
    dataset: CocoDataset, loading: LoaderSettings, title: str, *, views: Views = ONE_VIEW, ranks: Ranks = ALONE
) -> Iterator[Batch]:
    """Returns the batches of a rank's share of `dataset`; the same images at each of `views.sides` follow one another.

    The device then holds one of these sizes at a time. A progress bar has the `title`. Raises UserError at an image
    that can't be read.
    """
    loader = evaluation_loader(dataset, loading, test_sides=views.sides, ranks=ranks)
    bar = tqdm(loader, title, leave=False, disable=True if STDOUT.is_quiet or not ranks.is_first else None)
    return BadImages(len(dataset), skip=False).passing(chain.from_iterable(bar))


def fastest_form(
    model: RetinaNet, device: torch.device, precision: torch.dtype, threshold: float
) -> RetinaNet | SparseNetwork:
    """Returns the fastest network on `device` with the same detections above `threshold` as the trained `model`."""
    if device.type == "cuda":  # the host would be slower at launching the norms' kernels than the GPU at running them
        return folded_network(model, precision)
    return SparseNetwork(model, threshold) if can_be_sparse(model) else model


def found_in_set(parts: list[Found], annotations: Annotations) -> Found:
    """Returns the detections of all batches by image id and falling score; ties stay in their order."""
    found = joined(parts)
    return found.at(np.lexsort((-found.scores, annotations.image_ids[found.images])))


def found_in_batch(detections: Detections, scales: Tensor, images: np.ndarray) -> Found:
    """Returns the detections in a batch of `images`, with boxes (left, top, width, height) in original pixels.

    `scales` [B, 2] are those of the batch. From here on, boxes have COCO's form.
    """
    boxes = detections.boxes.double() / per_coordinate(scales.double())[:, None]  # [B, K, 4]
    labels = detections.labels.cpu().numpy()  # [B, K]
    of_images = np.repeat(images[:, None], labels.shape[1], axis=1)
    found = Found(of_images, labels, detections.scores.double().cpu().numpy(), boxes_of(boxes.cpu().numpy()))
    return found.at(labels >= 0)

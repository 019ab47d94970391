"""Detects in all images of a data set."""

from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retinanet.coco.annotations import Annotations
from retinanet.coco.boxes import boxes_of
from retinanet.coco.results import Found, joined
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
    """The detections in all images of `dataset`, by image id and falling score.

    The candidates of all `views` of an image are merged before NMS. The ranks share the images; rank 0 gets all
    detections, the others none. Raises UserError if an image can't be read: no image is skipped silently.
    """
    model.eval()
    pending: tuple[Detections, Tensor, np.ndarray] | None = None
    index_of = {image_id: index for index, image_id in enumerate(dataset.annotations.image_ids.tolist())}

    def finish_pending() -> list[Found]:
        return [found_in_batch(*pending)] if pending else []

    loader = evaluation_loader(dataset, loading, test_sides=views.sides, ranks=ranks)
    # View after view, so that the device holds the images of one view at a time.
    batches = chain.from_iterable(tqdm(loader, "Detection", leave=False, disable=None if ranks.is_first else True))
    loaded = OneAhead(on_device(BadImages(len(dataset), skip=False).passing(batches), device))
    network = fastest_form(model, device, precision, detection.threshold)
    merged = predict_views(network, loaded, views, detection.num_candidates, device=device, precision=precision)
    parts: list[Found] = []
    with searching_algorithms(False):  # images have many shapes, and the rest of each is a smaller batch
        for candidates, sizes, scales, image_ids in merged:
            parts += finish_pending()  # while a GPU works on the predictions
            loaded.fetch()  # and copied while the suppression waits for it
            batch, count = candidates.scores.shape
            with memory_explained(f"the suppression in {batch} images, {count} candidates each", DETECTION_ADVICE):
                images = np.array([index_of[image_id] for image_id in image_ids.tolist()])
                pending = suppress(candidates, sizes, detection), scales, images
    parts += finish_pending()
    found = joined([part for of_rank in ranks.gathered(parts) for part in of_rank])
    return in_order(found, dataset.annotations)


def fastest_form(
    model: RetinaNet, device: torch.device, precision: torch.dtype, threshold: float
) -> RetinaNet | SparseNetwork:
    """Returns the fastest network on `device` with the same detections above `threshold` as the trained `model`."""
    if device.type == "cuda":  # the host would be slower at launching the norms' kernels than the GPU at running them
        return folded_network(model, precision)
    return SparseNetwork(model, threshold) if can_be_sparse(model) else model


def in_order(found: Found, annotations: Annotations) -> Found:
    """The detections by image id and falling score; ties stay in their order."""
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

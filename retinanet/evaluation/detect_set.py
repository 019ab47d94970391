"""Detects objects in all images of a dataset."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found, joined
from retinanet.data.batches import BadImage, Batch, Sample
from retinanet.data.dataloader import LoaderSettings, evaluation_loader, original_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.device_feed import BadImages, OneAhead, on_device
from retinanet.detector.detect import suppress
from retinanet.detector.fold import folded_network
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Detections
from retinanet.detector.windows import SparseNetwork, can_be_sparse
from retinanet.evaluation.detect_images import Looks, detect_images, found_in_batch
from retinanet.evaluation.views import ONE_VIEW, Look, Views, look_with, merged_views
from retinanet.runtime.device import searching_algorithms
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.resource_errors import DETECTION_ADVICE, memory_explained
from retinanet.runtime.streams import hides_bars


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
    """Returns the detections of `model` in all images of `dataset`, as detect_with does."""
    network = fastest_form(model.eval(), device, precision, detection.threshold)
    look = look_with(network, detection.num_candidates, device=device, precision=precision)
    return detect_with(look, dataset, loading, device=device, detection=detection, views=views, ranks=ranks)


def detect_with(
    look: Look,
    dataset: CocoDataset,
    loading: LoaderSettings,
    *,
    device: torch.device,
    detection: DetectionSettings = DEFAULT_DETECTION,
    views: Views = ONE_VIEW,
    ranks: Ranks = ALONE,
) -> Found:
    """Returns the detections in all images of `dataset`, sorted by image id and descending score.

    The candidates that `look` finds in all `views` of an image are merged before NMS. The images are divided among the
    ranks; rank 0 returns all detections, and the other ranks return none. Raises UserError if an image can't be read,
    rather than skipping it.
    """
    with searching_algorithms(False):  # image shapes vary, and the last batch of each shape is smaller
        if views.tiles:
            images = tqdm(original_loader(dataset, loading, ranks), "Detection", leave=False, disable=_hides_bar(ranks))
            views = views._replace(sides=views.sides or [(dataset.min_side, dataset.max_side)])
            parts = _found_in_images(look, images, Looks(views, detection, loading.batch_size), device)
        else:
            batches = on_device(batches_of_set(dataset, loading, "Detection", views=views, ranks=ranks), device)
            parts = _found_in_batches(look, OneAhead(batches), views, detection)
    return found_in_set([part for of_rank in ranks.gathered(parts) for part in of_rank], dataset.annotations)


def _found_in_images(
    look: Look, images: Iterable[Sample | BadImage], looks: Looks, device: torch.device
) -> list[Found]:
    """Detects objects in `images`, which have their original size, and in the tiles of each image, as predict does."""
    parts = []
    for sample in images:
        if isinstance(sample, BadImage):
            raise UserError(sample.message)
        found = detect_images(look, [sample.image], looks, device)
        parts.append(found._replace(images=np.full_like(found.images, sample.row)))
    return parts


def _found_in_batches(look: Look, batches: OneAhead, views: Views, detection: DetectionSettings) -> list[Found]:
    parts: list[Found] = []
    suppressed: list[tuple[Detections, Tensor, np.ndarray]] = []  # of the previous batch
    for candidates, sizes, scales, rows in merged_views(look, batches, views):
        # While a GPU computes these predictions, the host reads the previous batch's detections and starts the copy of
        # the next batch, because the host will have to wait during the suppression.
        parts += [found_in_batch(*batch) for batch in suppressed]
        batches.fetch()
        batch_size, count = candidates.scores.shape
        where = f"the suppression in {counted(batch_size, 'image')}, {counted(count, 'candidate')} each"
        with memory_explained(where, DETECTION_ADVICE):
            suppressed = [(suppress(candidates, sizes, detection), scales, rows.numpy())]
    return parts + [found_in_batch(*batch) for batch in suppressed]


def batches_of_set(
    dataset: CocoDataset, loading: LoaderSettings, title: str, *, views: Views = ONE_VIEW, ranks: Ranks = ALONE
) -> Iterator[Batch]:
    """Returns this rank's batches of `dataset`, each in all sizes of `views.sides`, one size after the other.

    The device thus needn't hold all sizes of a batch at once. `title` labels the progress bar. Raises UserError if an
    image can't be read.
    """
    loader = evaluation_loader(dataset, loading, test_sides=views.sides, ranks=ranks)
    bar = tqdm(loader, title, leave=False, disable=_hides_bar(ranks))
    return BadImages(len(dataset), skip=False).passing(chain.from_iterable(bar))


def fastest_form(
    model: RetinaNet, device: torch.device, precision: torch.dtype, threshold: float
) -> RetinaNet | SparseNetwork:
    """Returns the trained `model` in its fastest form for `device`; detections above `threshold` stay the same."""
    if device.type == "cuda":  # unfolded, batch norms would take the host longer to launch than the GPU to run
        return folded_network(model, precision)
    return SparseNetwork(model, threshold) if can_be_sparse(model) else model


def found_in_set(parts: list[Found], annotations: Annotations) -> Found:
    """Joins the detections of all batches, sorted by image id and descending score; ties keep their order."""
    found = joined(parts)
    return found.at(np.lexsort((-found.scores, annotations.image_ids[found.images])))


def _hides_bar(ranks: Ranks) -> bool:
    return hides_bars() or not ranks.is_first

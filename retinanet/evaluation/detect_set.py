"""Detection over a data set: the rows of its result file."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from retinanet.data.dataloader import evaluation_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.device_feed import BadImages, on_device
from retinanet.detector.detect import suppress
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Detections
from retinanet.evaluation.test_time_augmentation import look
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.resource_errors import DETECTION_ADVICE, memory_explained


@torch.no_grad()
def detect_all(
    model: RetinaNet,
    dataset: CocoDataset,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    detection: DetectionSettings = DEFAULT_DETECTION,
    test_sides: Sequence[tuple[int, int]] | None = None,
    flip_test: bool = False,
    timeout: float = 0,
    ranks: Ranks = ALONE,
) -> list[dict[str, Any]]:
    """The rows of a COCO result file for all images of `dataset`, by image id and falling score.

    An image is looked at once at each of `test_sides`, and with `flip_test` mirrored too; what all views give is merged
    before the suppression. The ranks share the images out; rank 0 gets all rows, the others none. `test_sides` and
    `timeout` are the loader's. Raises UserError at an image that can't be read: none is left out
    silently.
    """
    model.eval()
    pending: tuple[Detections, Tensor, Tensor] | None = None

    def finish_pending() -> list[dict[str, Any]]:
        return result_rows(*pending, dataset.annotations.category_ids) if pending else []

    loader = evaluation_loader(
        dataset,
        batch_size=batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
        test_sides=test_sides,
        timeout=timeout,
        rank=ranks.rank,
        num_ranks=ranks.size,
    )
    # One after the other, so that the device holds the images of one view at a time.
    batches = chain.from_iterable(tqdm(loader, "Detection", leave=False, disable=None if ranks.is_first else True))
    views = look(
        model,
        on_device(BadImages(len(dataset), skip=False).passing(batches), device),
        num_sides=1 if test_sides is None else len(test_sides),
        flip_test=flip_test,
        num_candidates=detection.num_candidates,
        device=device,
        precision=precision,
    )
    rows: list[dict[str, Any]] = []
    for candidates, sizes, scales, image_ids in views:
        rows += finish_pending()  # while a GPU works on the predictions
        batch, count = candidates.scores.shape
        with memory_explained(f"the suppression in {batch} images, {count} candidates each", DETECTION_ADVICE):
            pending = suppress(candidates, sizes, detection), scales, image_ids
    rows += finish_pending()
    rows = [row for of_rank in ranks.gathered(rows) for row in of_rank]
    return sorted(rows, key=lambda row: (row["image_id"], -row["score"]))


def result_rows(
    detections: Detections, scales: Tensor, image_ids: Tensor, category_ids: list[int]
) -> list[dict[str, Any]]:
    """Detections as COCO writes them: category ids and (left, top, width, height) in pixels of the original image.

    This is one of the two edges where boxes are COCO's. `scales` [B, 2] are the batch's.
    """
    boxes = detections.boxes.double() / scales.double().flip(1).repeat(1, 2)[:, None]  # [B, K, 4]
    boxes[..., 2:] -= boxes[..., :2]
    rows = []
    for image_id, image_boxes, scores, labels in zip(
        image_ids.tolist(), boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        for box, score, label in zip(image_boxes, scores, labels, strict=True):
            if label >= 0:
                rows.append({"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score})
    return rows

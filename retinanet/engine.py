"""The two loops: training steps, and detection over a data set."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retinanet.bad_images import BadImages
from retinanet.compute import ComputeLosses
from retinanet.data import CocoDataset
from retinanet.detect import NUM_CANDIDATES, suppress
from retinanet.distributed import Ranks, unshared
from retinanet.faults import memory_explained
from retinanet.loaders import WaitClock, evaluation_loader, on_device
from retinanet.optimizer import set_rate
from retinanet.skipped_steps import Step
from retinanet.structures import Batch, Detections, Targets
from retinanet.training_state import TrainingState
from retinanet.views import look

ALONE = Ranks()


class Progress(NamedTuple):
    """What a log line tells of the run so far."""

    iteration: int  # of the epoch, 1 is the first
    classification: float  # losses of this iteration
    regression: float
    running: float  # mean loss of the last 500 iterations
    epoch_mean: float  # mean loss of the epoch so far
    learning_rate: float
    num_images: int  # of the epoch so far
    seconds: float  # since the epoch began
    waited: float  # seconds of them in which there was no batch to work on


def train_steps(
    state: TrainingState,
    batches: Iterable[Batch],
    *,
    rates: Sequence[float],
    clip_norm: float,
    compute_losses: ComputeLosses,
    accumulate: int = 1,
    ranks: Ranks = ALONE,
) -> Iterator[float]:
    """Train on `batches`, the rest of the epoch in progress; yield each step's learning rate when it is done.

    A step takes the gradient of `accumulate` batches, which is that of one batch of all their images. `rates` are the
    learning rates of the steps. Nothing in here waits for the device.
    """
    state.network.train()
    clock = WaitClock(batches, state.device)
    started, waited = time.perf_counter() - state.epoch_seconds, state.epoch_waited
    loaded = on_device(clock, state.device)
    for rate in rates:
        group = list(islice(loaded, accumulate))
        if not group:
            break
        state.iteration += 1
        if any(len(batch.images) for batch in group) or ranks.size > 1:
            _step(state, group, rate, clip_norm, compute_losses, ranks)
        clock.step_launched()
        state.epoch_seconds, state.epoch_waited = time.perf_counter() - started, waited + clock.waited
        yield rate


def _step(
    state: TrainingState, group: list[Batch], rate: float, clip_norm: float, compute_losses: ComputeLosses, ranks: Ranks
) -> None:
    """Change the weights by the gradient of all ranks' batches together; leave them where it is not finite."""
    optimizer, scaler = state.optimizer, state.scaler
    set_rate(optimizer, rate)
    optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
    statistics = state.statistics()
    before = [tensor.clone() for tensor in statistics]
    largest = max(group, key=lambda batch: len(batch.images))
    with memory_explained(largest.images):
        numbers = _gradient(group, scaler, compute_losses, ranks)
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    mean_loss = numbers[0] + numbers[1]
    is_bad = ~(mean_loss.isfinite() & norm.isfinite())
    # The fused optimisers look at this on the device, so that no one has to wait for the answer.
    optimizer.found_inf = (is_bad | (numbers[2] == 0)).float()  # type: ignore[attr-defined]
    optimizer.step()
    scaler.update()
    for tensor, old in zip(statistics, before, strict=True):
        tensor.copy_(torch.where(is_bad, old, tensor))
    if state.average:
        state.average.update()

    state.running_loss.add(torch.where(is_bad, torch.nan, mean_loss))
    state.tally += torch.stack([torch.where(is_bad, 0, mean_loss), ~is_bad, numbers[2]])
    state.last_losses = numbers[:2]
    told = torch.stack([is_bad, numbers[0], numbers[1], norm])
    image_ids, targets = [batch.image_ids for batch in group], [batch.targets for batch in group]
    state.skipped.add(Step(state.epoch, state.iteration, rate, image_ids, targets, told))


def _gradient(group: list[Batch], scaler: torch.amp.GradScaler, compute_losses: ComputeLosses, ranks: Ranks) -> Tensor:
    """Leave the gradient of the mean loss over all images in the parameters, those of the other ranks included.

    Returns [3]: that mean of each kind of loss, and the number of images. A batch's losses are means over its images,
    so each counts by its share of them. DistributedDataParallel takes the mean over the ranks, not the sum.
    """
    device = group[0].images.device
    num_images = torch.full((), sum(len(batch.images) for batch in group), dtype=torch.float32, device=device)
    ranks.summed(num_images)
    means = torch.zeros(2, device=device)
    for number, batch in enumerate(group, start=1):
        own = len(batch.images)
        if not own and ranks.size == 1:
            continue
        share = own / num_images.clamp(min=1)
        with unshared(compute_losses) if number < len(group) else nullcontext():
            losses = compute_losses(*(batch.images, batch.targets) if own else _blank(batch))
            scaler.scale((losses.classification + losses.regression) * (share * ranks.size)).backward()
        means += torch.stack([losses.classification.detach(), losses.regression.detach()]) * share
    return torch.cat([ranks.summed(means), num_images[None]])


def _blank(batch: Batch) -> tuple[Tensor, Targets]:
    """An image and targets for a rank that has none: it must take part in the step, with weight 0."""
    boxes, labels = batch.targets
    return (
        batch.images.new_zeros(1, *batch.images.shape[1:]),
        Targets(boxes.new_zeros(1, 1, 4), labels.new_full((1, 1), -1)),
    )


def progress_of(state: TrainingState, rate: float) -> Progress:
    """What there is to log of the epoch in progress. Waits for the device."""
    loss, steps, images = state.tally.tolist()
    return Progress(
        iteration=state.iteration,
        classification=state.last_losses[0].item(),
        regression=state.last_losses[1].item(),
        running=state.running_loss.mean(),
        epoch_mean=loss / steps if steps else math.nan,
        learning_rate=rate,
        num_images=int(images),
        seconds=state.epoch_seconds,
        waited=state.epoch_waited,
    )


@torch.no_grad()
def detect_all(
    model: nn.Module,
    dataset: CocoDataset,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    detect_settings: dict[str, Any],
    test_sides: Sequence[tuple[int, int]] | None = None,
    flip_test: bool = False,
    timeout: float = 0,
    ranks: Ranks = ALONE,
) -> list[dict[str, Any]]:
    """The rows of a COCO result file for all images of `dataset`, by image id and falling score.

    An image is looked at once at each of `test_sides`, and with `flip_test` mirrored too; what all views give is merged
    before the suppression. The ranks share the images out; rank 0 gets all rows, the others none. `detect_settings` are
    detect's, `test_sides` and `timeout` the loader's. Raises UserError at an image that can't be read: none is left out
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
    settings = dict(detect_settings)
    views = look(
        model,
        on_device(BadImages(len(dataset), skip=False).passing(batches), device),
        num_sides=1 if test_sides is None else len(test_sides),
        flip_test=flip_test,
        num_candidates=settings.pop("num_candidates", NUM_CANDIDATES),
        device=device,
        precision=precision,
    )
    rows: list[dict[str, Any]] = []
    for candidates, sizes, scales, image_ids in views:
        rows += finish_pending()  # while a GPU works on the predictions
        pending = suppress(candidates, sizes, **settings), scales, image_ids
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

"""The two loops: training steps, and detection over a data set."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retinanet.bad_images import BadImages
from retinanet.compute import ComputeLosses
from retinanet.data import CocoDataset
from retinanet.detect import NUM_CANDIDATES, suppress
from retinanet.distributed import Ranks
from retinanet.faults import memory_explained
from retinanet.loaders import WaitClock, evaluation_loader, on_device
from retinanet.skipped_steps import Step
from retinanet.structures import Batch, Detections, Losses, Targets
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


def build_optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with momentum 0.9."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Fused: one pass over the weights instead of one for each operation.
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "fused": True}
    if name == "sgd":
        optimizer = torch.optim.SGD(parameters, momentum=0.9, **settings)
        for parameter in parameters:  # PyTorch leaves them as the memory was if it is the first step that is skipped
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters, **settings)


def train_steps(
    state: TrainingState,
    batches: Iterable[Batch],
    *,
    rates: Sequence[float],
    clip_norm: float,
    compute_losses: ComputeLosses,
    ranks: Ranks = ALONE,
) -> Iterator[float]:
    """Train on `batches`, the rest of the epoch in progress; yield each step's learning rate when it is done.

    `rates` are the learning rates of those batches. Nothing in here waits for the device.
    """
    state.network.train()
    clock = WaitClock(batches, state.device)
    started, waited = time.perf_counter() - state.epoch_seconds, state.epoch_waited
    for batch, rate in zip(on_device(clock, state.device), rates, strict=False):
        state.iteration += 1
        if len(batch.images) or ranks.size > 1:
            _step(state, batch, rate, clip_norm, compute_losses, ranks)
        clock.step_launched()
        state.epoch_seconds, state.epoch_waited = time.perf_counter() - started, waited + clock.waited
        yield rate


def _step(
    state: TrainingState, batch: Batch, rate: float, clip_norm: float, compute_losses: ComputeLosses, ranks: Ranks
) -> None:
    """Change the weights by the gradient of all ranks' batches; leave them where it is not finite."""
    optimizer, scaler = state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
    statistics = state.statistics()
    before = [tensor.clone() for tensor in statistics]
    own = len(batch.images)
    with memory_explained(batch.images):
        losses = compute_losses(*(batch.images, batch.targets) if own else _blank(batch))
        loss, numbers, weight = _over_ranks(losses, own, ranks)
        scaler.scale(loss * weight if ranks.size > 1 else loss).backward()
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

    state.running_loss.add(torch.where(is_bad, torch.nan, mean_loss))
    state.tally += torch.stack([torch.where(is_bad, 0, mean_loss), ~is_bad, numbers[2]])
    state.last_losses = numbers[:2]
    told = torch.stack([is_bad, numbers[0], numbers[1], norm])
    state.skipped.add(Step(state.epoch, state.iteration, rate, batch.image_ids, batch.targets, told))


def _over_ranks(losses: Losses, num_images: int, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's loss; the ranks' losses and number of images together [3]; what this rank's counts for in them.

    The losses are means over the images. DistributedDataParallel takes the mean over the ranks, which have different
    numbers of images: the weights make it the mean over all images.
    """
    loss = losses.classification + losses.regression
    count = torch.full_like(loss, num_images, requires_grad=False)
    numbers = torch.stack([losses.classification.detach(), losses.regression.detach(), count])
    if ranks.size == 1:
        return loss, numbers, count
    numbers[:2] *= count
    ranks.summed(numbers)
    numbers[:2] /= numbers[2].clamp(min=1)
    return loss, numbers, count * ranks.size / numbers[2].clamp(min=1)


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

"""The two loops: one epoch of training, and detection over a data set."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retinanet.anchors import anchors_for
from retinanet.bad_images import BadImages
from retinanet.compute import ComputeLosses
from retinanet.data import CocoDataset, evaluation_loader, on_device
from retinanet.detect import detect
from retinanet.precision import autocast
from retinanet.structures import Batch, Detections

RUNNING_WINDOW = 500


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


class RunningLoss:
    """The mean loss of the last 500 iterations, kept on the device so that adding to it waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self.window = torch.zeros(RUNNING_WINDOW, device=device)
        self.count = 0

    def add(self, loss: Tensor) -> None:
        self.window[self.count % RUNNING_WINDOW] = loss
        self.count += 1

    def mean(self) -> float:
        return float(self.window[: self.count].mean())


class WaitClock:
    """Hands batches on, and measures the seconds in which the device had nothing to do but wait for one."""

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self.batches, self.waited = batches, 0.0
        self.step_done = torch.cuda.Event() if device.type == "cuda" else None

    def __iter__(self) -> Iterator[Batch]:
        asked = time.perf_counter()
        for batch in self.batches:
            # A GPU works on while its next batch is waited for; it is idle where it has finished before that came.
            if self.step_done is None or self.step_done.query():
                self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def step_launched(self) -> None:
        if self.step_done is not None:
            self.step_done.record()


def build_optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with momentum 0.9."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Fused: one pass over the weights instead of one for each operation.
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "fused": True}
    if name == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **settings)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters, **settings)


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    running_loss: RunningLoss,
    *,
    device: torch.device,
    rates: Sequence[float],
    clip_norm: float,
    log_every: int,
    compute_losses: ComputeLosses,
    scaler: torch.amp.GradScaler | None = None,
) -> Iterator[Progress]:
    """Train on an epoch's `batches`; yield what to log at the first, each `log_every`th and the last iteration.

    `rates` are the learning rates of the iterations. Between two yields nothing waits for the device. `scaler` keeps
    float16's gradients in its range. Raises FloatingPointError where the loss to log is not finite.
    """
    model.train()
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    started, num_images, iteration, logged = time.perf_counter(), 0, 0, True
    clock = WaitClock(batches, device)
    total = torch.zeros((), dtype=torch.float64, device=device)

    def progress() -> Progress:
        mean = float(total) / iteration
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} at iteration {iteration} of the epoch")
        return Progress(
            iteration=iteration,
            classification=losses.classification.item(),
            regression=losses.regression.item(),
            running=running_loss.mean(),
            epoch_mean=mean,
            learning_rate=rate,
            num_images=num_images,
            seconds=time.perf_counter() - started,
            waited=clock.waited,
        )

    for iteration, (batch, rate) in enumerate(zip(on_device(clock, device), rates, strict=False), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
        losses = compute_losses(batch.images, batch.targets)
        loss = losses.classification + losses.regression
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
        clock.step_launched()

        running_loss.add(loss.detach())
        total += loss.detach()
        num_images += len(batch.images)
        logged = iteration == 1 or iteration % log_every == 0
        if logged:
            yield progress()
    if not logged:
        yield progress()


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
) -> list[dict[str, Any]]:
    """The rows of a COCO result file for all images of `dataset`, by image id and falling score.

    `detect_settings` are detect's. Raises UserError at an image that can't be read: none is left out silently.
    """
    model.eval()
    pending: tuple[Detections, Tensor, Tensor] | None = None

    def finish_pending() -> list[dict[str, Any]]:
        return result_rows(*pending, dataset.annotations.category_ids) if pending else []

    loader = evaluation_loader(dataset, batch_size=batch_size, workers=workers, pin_memory=device.type == "cuda")
    batches = tqdm(loader, "Detection", leave=False, disable=None)
    rows: list[dict[str, Any]] = []
    for batch in on_device(BadImages(len(dataset), skip=False).passing(batches), device):
        with autocast(device, precision):
            predictions = model(batch.images)
        rows += finish_pending()  # while a GPU works on the predictions
        anchors = anchors_for(*batch.images.shape[2:], device)
        pending = detect(predictions, anchors, batch.sizes, **detect_settings), batch.scales, batch.image_ids
    rows += finish_pending()
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

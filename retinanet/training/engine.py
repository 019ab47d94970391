"""Runs the training steps of an epoch."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from retinanet.data.batches import Batch, Loaded
from retinanet.data.device_feed import WaitClock, in_steps, on_device
from retinanet.detector.structures import Targets
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.resource_errors import STEP_ADVICE, memory_explained, named
from retinanet.runtime.signals import STOP
from retinanet.runtime.streams import hides_bars
from retinanet.training.build import Run
from retinanet.training.losses import ComputeLosses, unshared
from retinanet.training.optimizer import set_rate
from retinanet.training.schedule import Schedule
from retinanet.training.state import StepRecord, TrainingState, copies, put_back

LEAST_SCALE = 1  # the lowest loss scale of float16; if gradients overflow even at this scale, training has diverged


class Progress(NamedTuple):
    """The progress of an epoch, for the log and the trackers."""

    iteration: int  # in the epoch, starting at 1
    classification: float  # losses of this iteration
    regression: float
    running: float  # mean loss of the last 500 iterations
    epoch_mean: float  # mean loss of the epoch so far
    learning_rate: float
    num_images: int  # in the epoch so far
    seconds: float  # since the epoch began
    waited: float  # the part of these seconds without a batch to work on
    clipped: float  # fraction of the epoch's steps so far
    gradient_norm: float  # of this iteration, before clipping


def train_steps(
    state: TrainingState,
    steps: Iterable[list[Batch]],
    *,
    rates: Iterable[float],
    clip_norm: float,
    compute_losses: ComputeLosses,
    ranks: Ranks = ALONE,
) -> Iterator[float]:
    """Trains on the batches of `steps`, which must be on the device; after each step, yields its learning rate.

    The gradient of a step equals the gradient of a single batch with all images of the step. `rates` are the learning
    rates of the steps. Nothing in this function waits for the device.
    """
    state.network.train()
    for rate, group in zip(rates, steps, strict=False):
        state.iteration += 1
        ranks.meet()  # otherwise a GPU's queue would fill up, and this process couldn't report a missing rank
        if any(len(batch.images) for batch in group) or ranks.size > 1:
            largest = max(group, key=lambda batch: len(batch.images))
            with memory_explained(named(largest.images), STEP_ADVICE):
                _step(state, group, rate, clip_norm, compute_losses, ranks)
        yield rate


def _step(
    state: TrainingState, group: list[Batch], rate: float, clip_norm: float, compute_losses: ComputeLosses, ranks: Ranks
) -> None:
    """Updates the weights with the gradient over all ranks' batches, unless the loss or the gradient is not finite."""
    optimizer, scaler = state.optimizer, state.scaler
    set_rate(optimizer, rate)
    for parameter in state.parameters:
        parameter.grad = None  # before the forward pass, which can then use the gradients' memory
    statistics = state.statistics()
    before = copies(statistics)
    numbers = _gradient(group, statistics, scaler, compute_losses, ranks)
    scaler.unscale_(optimizer)
    norm = clip_grad_norm_(state.parameters, clip_norm)
    mean_loss = numbers[0] + numbers[1]
    is_finite = mean_loss.isfinite()
    is_bad = ~(is_finite & norm.isfinite())
    is_empty = numbers[2] == 0  # none of the ranks has an image
    # The fused optimisers read this on the device, so the host doesn't wait for it.
    optimizer.found_inf = (is_bad | is_empty).float()  # type: ignore[attr-defined]
    optimizer.step()
    is_skipped = is_bad
    if scaler.is_enabled():
        # GradScaler finds the scale by trial: as long as it can be lowered, overflowing gradients are normal.
        scale = scaler.scale(torch.ones_like(mean_loss))  # the scale of this step
        is_skipped = is_bad & ~(is_finite & (scale > LEAST_SCALE))
        scaler.update()
    put_back(statistics, before, is_bad)
    if state.average:
        state.average.update()

    has_no_loss = is_bad | is_empty
    state.running_loss.add(torch.where(has_no_loss, torch.nan, mean_loss))
    is_clipped = ~is_bad & (norm > clip_norm)
    state.tally += torch.stack([torch.where(has_no_loss, 0, mean_loss), ~has_no_loss, numbers[2], is_clipped])
    state.last_losses = torch.where(is_empty, state.last_losses, numbers[:2])
    state.last_norm = torch.where(is_empty, state.last_norm, norm)
    numbers_of_step = torch.stack([is_skipped, numbers[0], numbers[1], norm])
    rows, targets = [batch.rows for batch in group], [batch.targets for batch in group]
    state.skipped.add(StepRecord(state.epoch, state.iteration, rate, rows, targets, numbers_of_step))


def _gradient(
    group: list[Batch],
    statistics: list[Tensor],
    scaler: torch.amp.GradScaler,
    compute_losses: ComputeLosses,
    ranks: Ranks,
) -> Tensor:
    """Adds the gradient of the mean loss over all images of all ranks to the parameters' gradients.

    Returns [3]: the mean classification and regression losses, and the number of images. A batch's losses are means
    over its images, so each batch is weighted by its share of the images. The factor `ranks.size` is needed because
    DistributedDataParallel averages over the ranks instead of summing. A batch without images leaves the batch-norm
    `statistics` unchanged.
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
        kept = [] if own else copies(statistics)
        with unshared(compute_losses) if number < len(group) else nullcontext():
            losses = compute_losses(*(batch.images, batch.targets) if own else _blank(batch))
            scaler.scale((losses.classification + losses.regression) * (share * ranks.size)).backward()
        means += torch.stack([losses.classification.detach(), losses.regression.detach()]) * share
        if not own and kept:
            torch._foreach_copy_(statistics, kept)
    return torch.cat([ranks.summed(means), num_images[None]])


def _blank(batch: Batch) -> tuple[Tensor, Targets]:
    """Returns a dummy batch, to be weighted 0, for a rank that has no images but must take part in the step."""
    boxes, labels = batch.targets
    return (
        batch.images.new_zeros(1, *batch.images.shape[1:]),
        Targets(boxes.new_zeros(1, 1, 4), labels.new_full((1, 1), -1)),
    )


def progress_of(state: TrainingState, rate: float) -> Progress:
    """Returns the progress of the current epoch. Waits for the device."""
    loss, steps, images, clipped = state.tally.tolist()
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
        clipped=clipped / steps if steps else 0.0,
        gradient_norm=state.last_norm.item(),
    )


def rest_of_epoch(run: Run, rate_of: Callable[[int], float] | None = None) -> Iterator[float]:
    """Trains for the rest of the current epoch; after each step, yields the step's learning rate.

    `rate_of`, which maps a step of the run to a learning rate, replaces the settings' schedule. If there is only one
    rank, a signal may raise Stopped, at a point from which the run can be resumed.
    """
    settings, state, sampler = run.settings, run.state, run.sampler
    sampler.start_at(state.epoch, state.iteration)
    first_steps = sampler.first_steps(settings.optimisation.epochs)
    scheduled = Schedule(
        settings.optimisation.learning_rate,
        first_steps,
        settings.optimisation.schedule,
        settings.optimisation.milestones,
        settings.optimisation.num_warmup_steps(first_steps[-1]),
    ).rate
    first_step = sampler.first_steps(state.epoch)[-1]  # --find_lr goes on after the last epoch
    clock = WaitClock(_steps_left(run), run.device)
    started, waited = time.perf_counter() - state.epoch_seconds, state.epoch_waited
    for rate in train_steps(
        state,
        clock,
        rates=map(rate_of or scheduled, range(first_step + state.iteration, first_step + len(sampler))),
        clip_norm=settings.optimisation.clip_norm,
        compute_losses=run.compute_losses,
        ranks=run.ranks,
    ):
        state.epoch_seconds, state.epoch_waited = time.perf_counter() - started, waited + clock.waited
        yield rate


def _steps_left(run: Run) -> Iterator[list[Batch]]:
    """Returns the batches of each remaining step, on the device. The code builds the pipeline's stages in order."""
    accumulate = run.sampler.accumulate
    # The progress bar comes first: it counts batches as they are loaded.
    loaded: Iterable[Loaded] = tqdm(
        run.loader,
        f"Epoch {run.state.epoch}",
        initial=run.state.iteration * accumulate,
        total=len(run.sampler) * accumulate,
        leave=False,
        disable=hides_bars() or not run.ranks.is_first,
    )
    # A signal may interrupt only the wait for the loader, so that a step that has begun is finished. With several
    # ranks, it doesn't even interrupt that: a rank that stopped at an arbitrary point would leave the others waiting.
    if run.ranks.size == 1:
        loaded = STOP.stoppable(loaded)
    # Unreadable images are refused or counted before any part of their batch goes to the device.
    batches = run.bad_images.passing(loaded)
    # Each batch is copied as soon as it is loaded, not when its step is complete.
    return in_steps(on_device(batches, run.device), accumulate)

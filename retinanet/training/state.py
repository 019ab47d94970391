"""Holds the state that a run carries from step to step: weights, optimiser, losses, skipped steps and random states."""

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Targets
from retinanet.runtime.errors import UserError
from retinanet.training.weight_average import WeightAverage


def random_states(device: torch.device) -> dict[str, Any]:
    """Returns the random states of Python, NumPy and PyTorch, and the random state of `device` if it is a GPU."""
    version, python, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - any code may draw from the global state
    assert isinstance(keys, np.ndarray)
    return {
        "python": [version, list(python), gauss],
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


@torch.no_grad()
def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies of `tensors`, made with few kernel launches."""
    made = [torch.empty_like(tensor) for tensor in tensors]
    if made:
        torch._foreach_copy_(made, list(tensors))
    return made


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], old: Sequence[Tensor], where: Tensor) -> None:
    """Sets `tensors` back to `old` if `where`, a single value on the device, is true; the host doesn't read `where`."""
    if not tensors:
        return
    # Not a weighted sum, in which values that are not finite would persist.
    chosen = torch.where(where, torch.cat(list(old)), torch.cat(list(tensors)))
    torch._foreach_copy_(list(tensors), chosen.split([len(tensor) for tensor in tensors]))


class StepRecord(NamedTuple):
    """The data to log about a step if it turns out to have been skipped."""

    epoch: int
    iteration: int
    learning_rate: float
    rows: list[Tensor]  # [B] of each batch, see Batch; not the images, which would stay in memory
    targets: list[Targets]  # of each batch
    numbers: Tensor  # [4]: 1 if skipped, classification loss, regression loss, gradient norm


class SkippedSteps:
    """Counts skipped steps.

    Whether a step was skipped is read from the GPU only on demand, because the CPU has to wait for it.
    """

    def __init__(self, max_in_row: int) -> None:
        self.max_in_row = max_in_row
        self.total, self.in_row = 0, 0
        self.too_many = False  # True once too many steps in a row were skipped
        self.unread: list[StepRecord] = []

    def add(self, step: StepRecord) -> None:
        self.unread.append(step)

    def take_new(self) -> list[dict[str, Any]]:
        """Returns the steps skipped since the last call, as plain data for JSON."""
        steps, self.unread = self.unread, []
        if not steps:
            return []
        new = []
        for step, numbers in zip(steps, torch.stack([step.numbers for step in steps]).tolist(), strict=True):
            self.in_row = self.in_row + 1 if numbers[0] else 0
            self.too_many |= self.in_row >= self.max_in_row
            if numbers[0]:
                self.total += 1
                new.append(_plain_record(step, numbers))
        return new


def _plain_record(step: StepRecord, numbers: list[float]) -> dict[str, Any]:
    images = []
    for rows, targets in zip(step.rows, step.targets, strict=True):
        batch = zip(rows.tolist(), targets.boxes.tolist(), targets.labels.tolist(), strict=True)
        for row, boxes, labels in batch:
            objects = [(box, label) for box, label in zip(boxes, labels, strict=True) if label >= 0]
            images.append(
                {
                    "row": row,
                    "boxes": [box for box, _ in objects],  # (x1, y1, x2, y2) in pixels of the network's input
                    "labels": [label for _, label in objects],
                }
            )
    return {
        "epoch": step.epoch,
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        # As strings, since JSON has no NaN.
        **dict(zip(("classification_loss", "regression_loss", "gradient_norm"), map(str, numbers[1:]), strict=True)),
        "images": images,
    }


RUNNING_WINDOW = 500
NUMBERS = ("epoch", "iteration", "evaluated", "best_ap", "num_images", "seconds", "epoch_seconds", "epoch_waited")


class RunningLoss:
    """Averages, on the device, the last 500 iterations' losses, so that adding a loss doesn't wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self.window = torch.full((RUNNING_WINDOW,), torch.nan, device=device)
        self.count = 0

    def add(self, loss: Tensor) -> None:
        """Adds the loss of an iteration; NaN, which the mean leaves out, marks a step without a usable loss."""
        self.window[self.count % RUNNING_WINDOW] = loss
        self.count += 1

    def mean(self) -> float:
        return float(self.window[: self.count].nanmean())


class TrainingState:
    """The network, its optimiser and the progress of the run."""

    def __init__(
        self,
        network: RetinaNet,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        scaler: torch.amp.GradScaler | None = None,
        average: WeightAverage | None = None,
        max_skipped: int = 10,
        random_stages: Sequence[str] = (),
    ) -> None:
        """Creates the state of a run that hasn't taken a step yet. `scaler` keeps small float16 gradients in range.

        The backbone's `random_stages` started without pretrained weights, so they may have their own learning rate.
        """
        self.network, self.optimizer, self.device = network, optimizer, device
        # Listed once, because walking through the network would be a third of the host's work in a step.
        self.parameters = list(network.parameters())
        self.norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self.random_stages = list(random_stages)
        self.scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
        self.average = average
        self.running_loss = RunningLoss(device)
        self.skipped = SkippedSteps(max_skipped)
        self.epoch = 0  # epochs finished
        self.iteration = 0  # steps done in the epoch in progress
        # Sums over the epoch in progress: losses, number of losses, images, steps with a clipped gradient.
        self.tally = torch.zeros(4, dtype=torch.float64, device=device)
        self.last_losses = torch.full(
            (2,), torch.nan, device=device
        )  # of the last iteration: classification, regression
        self.last_norm = torch.full((), torch.nan, device=device)  # gradient norm of the last iteration
        self.epoch_losses: list[float] = []
        self.clipped = math.nan  # fraction of the steps of the last epoch; NaN if another process trained it
        self.evaluated = 0  # epochs finished at the last evaluation
        self.numbers: dict[str, float] = {}  # results of the last evaluation
        self.score_threshold: float | None = None  # the threshold with the best F1 in that evaluation
        self.best_ap = float("-inf")
        self.ap_by_epoch: dict[int, float] = {}  # AP of all evaluations, by epochs finished
        self.num_images, self.seconds = 0, 0.0  # in the finished epochs
        self.epoch_seconds, self.epoch_waited = 0.0, 0.0

    def finish_epoch(self, mean_loss: float) -> None:
        self.epoch_losses.append(mean_loss)
        _, steps, _, clipped = self.tally.tolist()
        self.clipped = clipped / steps if steps else 0.0
        self.num_images += int(self.tally[2])
        self.seconds += self.epoch_seconds
        self.epoch, self.iteration, self.epoch_seconds, self.epoch_waited = self.epoch + 1, 0, 0.0, 0.0
        self.tally.zero_()

    def statistics(self) -> list[Tensor]:
        """Returns the batch-norm statistics that a forward pass changes."""
        both = [(norm.running_mean, norm.running_var) for norm in self.norms if norm.training]
        return [tensor for pair in both for tensor in pair if tensor is not None]

    def to_plain(self) -> dict[str, Any]:
        """Returns everything except the network's weights and their average, as tensors and plain data."""
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "random_stages": self.random_stages,
            "epoch_losses": self.epoch_losses,
            "numbers": self.numbers,
            "score_threshold": self.score_threshold,
            "ap_by_epoch": self.ap_by_epoch,
            "tally": self.tally,
            "running_window": self.running_loss.window,
            "running_count": self.running_loss.count,
            "skipped": self.skipped.total,
            "skipped_in_row": self.skipped.in_row,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(self.device),
            "averaged_updates": self.average.num_updates if self.average else 0,
        }

    def load_plain(self, content: dict[str, Any], path: object) -> None:
        """Restores a state that `to_plain` returned.

        Raises UserError, naming `path`, if the content doesn't fit this run.
        """
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            for parameter, moments in self.optimizer.state.items():
                for name, value in moments.items():
                    if value.shape != (torch.Size() if name == "step" else parameter.shape):
                        raise ValueError(f"the optimizer's {name} has the shape {list(value.shape)}")
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(content["scaler"])
            for name in NUMBERS:
                setattr(self, name, type(getattr(self, name))(content[name]))
            self.numbers = {str(name): float(number) for name, number in content.get("numbers", {}).items()}
            threshold = content.get("score_threshold")
            self.score_threshold = None if threshold is None else float(threshold)
            aps = content.get("ap_by_epoch", {})  # earlier versions stored none
            self.ap_by_epoch = {int(epoch): float(ap) for epoch, ap in aps.items()}
            self.epoch_losses = [float(loss) for loss in content["epoch_losses"]]
            tally = content["tally"]
            self.tally[: len(tally)].copy_(tally)  # earlier versions didn't count clipped steps
            self.running_loss.window.copy_(content["running_window"])
            self.running_loss.count = int(content["running_count"])
            self.skipped.total, self.skipped.in_row = int(content["skipped"]), int(content["skipped_in_row"])
            restore_random_states(content["random"], self.device)
            if self.average:
                self.average.num_updates = int(content["averaged_updates"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{path}: its training state does not fit this run ({error}). Move the file away."
            ) from error

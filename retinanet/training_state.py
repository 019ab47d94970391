"""All that a training step changes, so that another process can go on from it."""

from typing import Any

import torch
from torch import Tensor, nn

from retinanet.errors import UserError
from retinanet.model import RetinaNet
from retinanet.random_states import random_states, restore_random_states
from retinanet.skipped_steps import SkippedSteps
from retinanet.weight_average import WeightAverage

RUNNING_WINDOW = 500
NUMBERS = ("epoch", "iteration", "evaluated", "best_ap", "num_images", "seconds", "epoch_seconds", "epoch_waited")


class RunningLoss:
    """The mean loss of the last 500 iterations, kept on the device so that adding to it waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self.window = torch.full((RUNNING_WINDOW,), torch.nan, device=device)
        self.count = 0

    def add(self, loss: Tensor) -> None:
        """Add the loss of an iteration; NaN if its step was skipped, which the mean leaves out."""
        self.window[self.count % RUNNING_WINDOW] = loss
        self.count += 1

    def mean(self) -> float:
        return float(self.window[: self.count].nanmean())


class TrainingState:
    """The network, what trains it, and how far the run is."""

    def __init__(
        self,
        network: RetinaNet,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        scaler: torch.amp.GradScaler | None = None,
        average: WeightAverage | None = None,
        max_skipped: int = 10,
    ) -> None:
        """`scaler` keeps float16's small gradients in its range."""
        self.network, self.optimizer, self.device = network, optimizer, device
        self.scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
        self.average = average
        self.running_loss = RunningLoss(device)
        self.skipped = SkippedSteps(max_skipped)
        self.epoch = 0  # epochs finished
        self.iteration = 0  # batches done of the epoch in progress
        self.tally = torch.zeros(3, dtype=torch.float64, device=device)  # of it: losses summed, their number, images
        self.last_losses = torch.full((2,), torch.nan, device=device)  # of the last iteration, of each kind
        self.epoch_losses: list[float] = []
        self.evaluated = 0  # epochs that were finished at the last evaluation
        self.numbers: dict[str, float] = {}  # of the last evaluation
        self.best_ap = float("-inf")
        self.num_images, self.seconds = 0, 0.0  # of the finished epochs
        self.epoch_seconds, self.epoch_waited = 0.0, 0.0

    def finish_epoch(self, mean_loss: float) -> None:
        self.epoch_losses.append(mean_loss)
        self.num_images += int(self.tally[2])
        self.seconds += self.epoch_seconds
        self.epoch, self.iteration, self.epoch_seconds, self.epoch_waited = self.epoch + 1, 0, 0.0, 0.0
        self.tally.zero_()

    def statistics(self) -> list[Tensor]:
        """The batch-norm statistics that a forward pass changes."""
        norms = (module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d))
        both = [(norm.running_mean, norm.running_var) for norm in norms if norm.training]
        return [tensor for pair in both for tensor in pair if tensor is not None]

    def to_plain(self) -> dict[str, Any]:
        """Everything but the network's weights and their average, as tensors and plain data."""
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "epoch_losses": self.epoch_losses,
            "numbers": self.numbers,
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
        """Take what `to_plain` gave another process. UserError, naming `path`, where it does not fit this network."""
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            for parameter, kept in self.optimizer.state.items():
                for name, value in kept.items():
                    if name != "step" and value.shape != parameter.shape:
                        raise ValueError(f"the optimizer's {name} has the shape {list(value.shape)}")
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(content["scaler"])
            for name in NUMBERS:
                setattr(self, name, type(getattr(self, name))(content[name]))
            self.numbers = {str(name): float(number) for name, number in content.get("numbers", {}).items()}
            self.epoch_losses = [float(loss) for loss in content["epoch_losses"]]
            self.tally.copy_(content["tally"])
            self.running_loss.window.copy_(content["running_window"])
            self.running_loss.count = int(content["running_count"])
            self.skipped.total, self.skipped.in_row = int(content["skipped"]), int(content["skipped_in_row"])
            restore_random_states(content["random"], self.device)
            if self.average:
                self.average.num_updates = int(content["averaged_updates"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as fault:
            raise UserError(
                f"{path}: its training state does not fit this run ({fault}). Move the file away."
            ) from fault

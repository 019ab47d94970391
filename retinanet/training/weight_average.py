"""Keeps the exponential moving average of a run's weights, which is often better than the last weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from retinanet.runtime.errors import UserError


class WeightAverage:
    """A network's averaged weights and batch-norm statistics, on its device; no method waits for the device.

    Each update keeps a fraction of the previous average: `decay`, but at first only (1 + updates) / (10 + updates),
    because otherwise the initial weights would stay in the average for a long time.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.num_updates = decay, 0
        self.weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.averaged = [tensor for tensor in self.weights.values() if tensor.is_floating_point()]
        self.current = network.state_dict()  # the tensors that training changes in place
        self.trained = [tensor for tensor in self.current.values() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the network's current weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.averaged, self.trained, weight=1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Returns a context in which the network has the averaged weights."""
        trained = {name: tensor.clone() for name, tensor in self.current.items()}
        _copy(self.weights, self.current)
        try:
            yield
        finally:
            _copy(trained, self.current)

    def load(self, weights: dict[str, Tensor] | None, path: object) -> None:
        """Restores a saved average. Raises UserError, naming `path`, if it belongs to another network."""
        shapes = {name: tensor.shape for name, tensor in self.weights.items()}
        if weights is None or {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise UserError(f"{path}: its averaged weights do not fit this run. Move the file away.")
        _copy(weights, self.weights)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])

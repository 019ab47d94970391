"""A network's parameters side by side in a few long ones, as PyTorch's FSDP has them.

A small compiled step kept its host busy with 180 gradients: handing each over, and listing all of them for their norm
and for the optimiser. Here there are one or two.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

ALIGNMENT = 64  # numbers, 256 bytes: as PyTorch's allocator aligns a tensor of its own


class _Place(NamedTuple):
    """How a parameter lies in a long one."""

    length: int
    padding: int  # behind it
    sides: list[int]  # of its memory, the slowest first
    order: list[int]  # of these in its shape

    def view(self, part: Tensor) -> Tensor:
        """[length] in the parameter's shape."""
        return part.view(self.sides).permute(self.order)


class FlatParameters:
    """What an optimiser trains, as one long parameter for each of its groups.

    The network's own parameters become views of these, so nothing may hold their former memory. `optimizer` gets the
    long ones, with what it has kept of the others.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.groups: list[list[nn.Parameter]] = [list(group["params"]) for group in optimizer.param_groups]
        self.places = [list(map(_place_of, group)) for group in self.groups]
        # The compiler takes a module's parameters for tensors that stay where they are.
        self.long = nn.ParameterList(map(_joined, self.groups, self.places))
        for long, own, places in zip(self.long, self.groups, self.places, strict=True):
            for parameter, part in zip(own, _parts(long.detach(), places), strict=True):
                parameter.data, parameter.grad = part, None
            states = [optimizer.state.pop(parameter, {}) for parameter in own]
            for name, value in next(filter(None, states), {}).items():
                pairs = zip(states, own, strict=True)
                kept = [state[name] if name in state else torch.zeros_like(one) for state, one in pairs]
                # The number of steps is the same for all.
                optimizer.state[long][name] = _joined(kept, places) if value.ndim else value
        for group, long in zip(optimizer.param_groups, self.long, strict=True):
            group["params"] = [long]

    def within(self, network: nn.Module) -> nn.Module:
        """`network`, which has these parameters, as a function of the long ones: they get its gradient."""
        return _Within(network, self)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Move the gradients that a call of the network itself, not `within`, left in its own parameters."""
        for long, own, places in zip(self.long, self.groups, self.places, strict=True):
            if all(parameter.grad is None for parameter in own):
                continue
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in own]
            joined = _joined(gradients, places)
            long.grad = joined if long.grad is None else long.grad + joined
            for parameter in own:
                parameter.grad = None

    def state_dict(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser's, as if it trained the network's own parameters, on the CPU."""
        content = optimizer.state_dict()
        groups: list[dict[str, Any]] = []
        states: list[dict[str, Tensor]] = []  # of each parameter
        for number, (settings, places) in enumerate(zip(content["param_groups"], self.places, strict=True)):
            groups.append({**settings, "params": list(range(len(states), len(states) + len(places)))})
            kept = {name: _apart(value, places) for name, value in content["state"].get(number, {}).items()}
            states += [{name: values[index] for name, values in kept.items()} for index in range(len(places))]
        return {"state": {index: state for index, state in enumerate(states) if state}, "param_groups": groups}


class _Within(nn.Module):
    """A module, so that what the compiler may take for constant is not checked at each call."""

    def __init__(self, network: nn.Module, flat: FlatParameters) -> None:
        super().__init__()
        self.network, self.long, self.places = network, flat.long, flat.places
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        self.names = [names[id(parameter)] for group in flat.groups for parameter in group]

    def forward(self, *inputs: Tensor) -> Any:
        parts = [part for pair in zip(self.long, self.places, strict=True) for part in _parts(*pair)]
        return functional_call(self.network, dict(zip(self.names, parts, strict=True)), inputs)


def _place_of(parameter: Tensor) -> _Place:
    slowest_first = sorted(range(parameter.ndim), key=parameter.stride().__getitem__, reverse=True)
    return _Place(
        parameter.numel(),
        -parameter.numel() % ALIGNMENT,
        [parameter.shape[side] for side in slowest_first],
        [slowest_first.index(side) for side in range(parameter.ndim)],
    )


@torch.no_grad()
def _joined(tensors: Sequence[Tensor], places: Sequence[_Place]) -> Tensor:
    """One long tensor with `tensors` at their places, zeros between them."""
    long = tensors[0].new_zeros(sum(place.length + place.padding for place in places))
    torch._foreach_copy_(_parts(long, places), list(tensors))
    return long


def _parts(long: Tensor, places: Sequence[_Place]) -> list[Tensor]:
    """Views of `long` in the shapes that it was joined from."""
    lengths = [length for place in places for length in (place.length, place.padding)]
    return [place.view(part) for place, part in zip(places, long.split(lengths)[::2], strict=True)]


def _apart(kept: Tensor, places: Sequence[_Place]) -> list[Tensor]:
    """Of what an optimiser keeps of a long parameter, such as a moment or the number of steps: a copy for each part."""
    return list(map(copy_on_cpu, _parts(kept, places) if kept.ndim else [kept] * len(places)))


def copy_on_cpu(part: Tensor) -> Tensor:
    """`part` alone: a file would get all of the tensor that it is a part of. A GPU may have no memory left for it."""
    return part.detach().to("cpu", copy=True)

"""The rule of CUDA graphs, without recording any: what a replay returns lies in memory that the next replay overwrites.

`compile_as_graphs` takes torch.compile's place. What it "compiles" runs as it is, but its results and the gradients of
its backward pass go into memory of its own, the same at each call, which is first filled with NaN. So code that still
needs a loss or a gradient of the call before gets NaN, not an old number that nobody would notice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def compile_as_graphs(compute: Callable[..., Any], *, options: dict[str, Any], **settings: Any) -> Callable[..., Any]:
    """As torch.compile: `compute` with graphs where `options` ask for them, else `compute` itself."""
    return Graphs(compute) if options.get("triton.cudagraphs") else compute


class Graphs:
    """A computation of losses, and its backward pass, each with its memory for results."""

    num_replays = 0

    def __init__(self, compute: Callable[..., Any]) -> None:
        self.compute = compute
        self.of_forward: dict[int, Tensor] = {}
        self.of_backward: dict[int, Tensor] = {}

    def __call__(self, *inputs: Any) -> Any:
        Graphs.num_replays += 1
        with torch.enable_grad():
            losses = self.compute(*inputs)
        parameters = _leaves_of(losses)
        return type(losses)(*_Replay.apply(self, losses, parameters, *parameters))


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graphs: Graphs, losses: tuple, parameters: list[Tensor], *same: Tensor) -> tuple[Tensor, ...]:
        ctx.graphs, ctx.losses, ctx.parameters = graphs, losses, parameters
        return tuple(_overwritten(graphs.of_forward, [loss.detach() for loss in losses]))

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor) -> tuple[Tensor | None, ...]:
        gradients = torch.autograd.grad(ctx.losses, ctx.parameters, of_losses)
        return (None, None, None, *_overwritten(ctx.graphs.of_backward, gradients))


def _overwritten(memory: dict[int, Tensor], results: Any) -> list[Tensor]:
    """The `results` in the `memory` of the call before, as tensors that are new: PyTorch gives such ones too."""
    given = []
    for number, result in enumerate(results):
        if number not in memory:
            memory[number] = torch.empty_like(result)
        memory[number].fill_(torch.nan).copy_(result)
        given.append(torch.empty_like(result).set_(memory[number]))
    return given


def _leaves_of(losses: Any) -> list[Tensor]:
    """The parameters that the losses depend on."""
    found, seen, ahead = [], set(), [loss.grad_fn for loss in losses]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        ahead += [before for before, _ in node.next_functions]
    return found

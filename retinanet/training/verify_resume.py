"""Checks, bit for bit, that a resumed run equals an uninterrupted one."""

import tempfile
from itertools import islice
from pathlib import Path

import torch

from retinanet.checkpoints.resume import LAST, load_saved, save_run
from retinanet.runtime.console import say
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import Ranks
from retinanet.settings.train import TrainSettings
from retinanet.training.build import Run, build_run
from retinanet.training.engine import rest_of_epoch
from retinanet.training.saves import snapshot
from retinanet.training.sets import Sets


def verify_resume(settings: TrainSettings, sets: Sets) -> int:
    """Trains 2N steps, then N steps and N more from a checkpoint, and logs the differences between the two results.

    Returns 1 if there are any, otherwise 0. N is --verify_resume. The checkpoint is written to a temporary folder; the
    output folder stays unchanged.
    """
    steps = settings.safety.verify_resume
    assert steps
    whole = build_run(settings, Ranks(), sets)
    say(f"Training {counted(2 * steps, 'step')}")
    whole_losses = [*_train(whole, steps), *_train(whole, steps)]
    say(f"Training {counted(steps, 'step')}, and {steps} more from a checkpoint")
    half = build_run(settings, Ranks(), sets)
    losses = _train(half, steps)
    with tempfile.TemporaryDirectory() as folder:
        save_run(snapshot(half), half.state.to_plain(), half.facts, Path(folder))
        saved = load_saved(Path(folder) / LAST)
    del half
    resumed = build_run(settings, Ranks(), sets, saved)
    losses += _train(resumed, steps)
    parts = [
        f"step {i}: loss {whole_loss!r}, resumed {loss!r}" for i, (whole_loss, loss) in _differing(whole_losses, losses)
    ]
    parts += _differences(_comparable(whole), _comparable(resumed))
    for part in parts:
        say(f"Differs: {part}")
    if parts:
        hint = "" if settings.safety.deterministic else "; on a GPU, try with --deterministic"
        say(f"The resumed run differs{hint}")
        return 1
    say(f"Equal to the last bit after {2 * steps} steps: losses, weights, optimizer and random states")
    return 0


def _train(run: Run, num_steps: int) -> list[float]:
    losses: list[float] = []
    while len(losses) < num_steps:
        for _ in islice(rest_of_epoch(run), num_steps - len(losses)):
            losses.append(run.state.last_losses.sum().item())
        if run.state.iteration == len(run.sampler):
            run.state.finish_epoch(0.0)
    return losses


def _differing(expected: list[float], actual: list[float]) -> list[tuple[int, tuple[float, float]]]:
    pairs = enumerate(zip(expected, actual, strict=True), start=1)
    return [(i, pair) for i, pair in pairs if pair[0] != pair[1] and not (pair[0] != pair[0] and pair[1] != pair[1])]


def _comparable(run: Run) -> dict[str, object]:
    plain = run.state.to_plain()
    return {name: plain[name] for name in ("optimizer", "scaler", "random", "tally", "running_window")} | {
        "weights": run.state.network.state_dict(),
        "averaged weights": run.state.average.weights if run.state.average else {},
    }


def _differences(first: object, second: object, name: str = "") -> list[str]:
    """Returns the names of the leaves that differ in two nested structures of tensors and plain data."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = torch.equal(first.nan_to_num(), second.nan_to_num()) and torch.equal(first.isnan(), second.isnan())
        return [] if same else [name]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [part for key in first for part in _differences(first[key], second[key], f"{name} {key}".strip())]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        return [
            part
            for i, pair in enumerate(zip(first, second, strict=True))
            for part in _differences(*pair, f"{name} {i}")
        ]
    return [] if first == second else [name]

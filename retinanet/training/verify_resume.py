"""A proof, on the user's machine and data, that a run which is gone on with is the run that was not stopped."""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import torch

from retinanet.checkpoints.resume import LAST, load_saved, save_run
from retinanet.runtime.console import say
from retinanet.runtime.ranks import Ranks
from retinanet.training.engine import rest_of_epoch
from retinanet.training.run import Data, Job, build_job
from retinanet.training.saves import snapshot


def verify_resume(args: argparse.Namespace, data: Data) -> int:
    """Train 2N steps, then N, and N more from a checkpoint; say where they part. Returns the exit code: 0 if nowhere.

    N is --verify_resume. The checkpoint lies in a temporary folder; the output folder is not touched.
    """
    steps = args.verify_resume
    whole = build_job(args, Ranks(), data)
    say(f"Training {2 * steps} steps")
    wanted = [*_train(whole, steps), *_train(whole, steps)]
    say(f"Training {steps} steps, and {steps} more from a checkpoint")
    half = build_job(args, Ranks(), data)
    found = _train(half, steps)
    with tempfile.TemporaryDirectory() as folder:
        save_run(snapshot(half), half.state.to_plain(), half.facts, Path(folder))
        saved = load_saved(Path(folder) / LAST)
    del half
    resumed = build_job(args, Ranks(), data, saved)
    found += _train(resumed, steps)
    parts = [f"step {i}: loss {one!r}, resumed {other!r}" for i, (one, other) in _differing(wanted, found)]
    parts += _differences(_comparable(whole), _comparable(resumed))
    for part in parts:
        say(f"Differs: {part}")
    if parts:
        say("The resumed run is another one" + ("" if args.deterministic else "; on a GPU, try with --deterministic"))
        return 1
    say(f"Equal to the last bit after {2 * steps} steps: losses, weights, optimizer and random states")
    return 0


def _train(job: Job, num_steps: int) -> list[float]:
    losses: list[float] = []
    while len(losses) < num_steps:
        for _ in islice(rest_of_epoch(job), num_steps - len(losses)):
            losses.append(job.state.last_losses.sum().item())
        if job.state.iteration == len(job.sampler):
            job.state.finish_epoch(0.0)
    return losses


def _differing(wanted: list[float], found: list[float]) -> list[tuple[int, tuple[float, float]]]:
    pairs = enumerate(zip(wanted, found, strict=True), start=1)
    return [(i, pair) for i, pair in pairs if pair[0] != pair[1] and not (pair[0] != pair[0] and pair[1] != pair[1])]


def _comparable(job: Job) -> dict[str, object]:
    plain = job.state.to_plain()
    return {name: plain[name] for name in ("optimizer", "scaler", "random", "tally", "running_window")} | {
        "weights": job.state.network.state_dict(),
        "averaged weights": job.state.average.weights if job.state.average else {},
    }


def _differences(one: object, other: object, name: str = "") -> list[str]:
    """The names of the leaves that differ in two nested structures of tensors and plain data."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan())
        return [] if same else [name]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [part for key in one for part in _differences(one[key], other[key], f"{name} {key}".strip())]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            part for i, pair in enumerate(zip(one, other, strict=True)) for part in _differences(*pair, f"{name} {i}")
        ]
    return [] if one == other else [name]

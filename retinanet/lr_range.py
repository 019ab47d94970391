"""The learning rate range test (Smith, 2017): which rates bring the loss down, on the user's data, in some minutes."""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.charts import rate_chart
from retinanet.command_line import say
from retinanet.distributed import Ranks
from retinanet.errors import UserError
from retinanet.plots import save_figure
from retinanet.train_setup import Data, build_job, rest_of_epoch

LOWEST, HIGHEST, NUM_STEPS = 1e-7, 1.0, 300
SMOOTHING = 0.95  # of the loss, which jumps from batch to batch
EXPLODED = 4  # times the lowest loss
LEAST_STEPS = 20  # before a few easy batches could be the lowest loss
STEPS_A_LINE = 25
PICTURE = Path("lr_range.png")


class RateRange(NamedTuple):
    """What the test saw, step by step, and what follows from it; None where the loss never fell."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggested: float | None


def find_learning_rate(args: argparse.Namespace, data: Data) -> int:
    """Train with a rate that grows from 1e-7 to 1 until the loss explodes; say and draw which rate to take.

    The weights and the output folder are not touched. Returns the exit code: 1 if no rate brought the loss down.
    """
    job = build_job(args, Ranks(), data)
    say(f"Trying {NUM_STEPS} learning rates from {LOWEST:g} to {HIGHEST:g}, a step each")
    found = RateRange([], [], [], None)
    lowest = math.inf
    while len(found.rates) < NUM_STEPS and not _has_exploded(found.smoothed, lowest):
        for rate in rest_of_epoch(job, rate_of):
            loss = job.state.last_losses.sum().item()
            found.rates.append(rate)
            found.losses.append(loss)
            found.smoothed.append(smoothed_mean(found.losses))
            if len(found.rates) % STEPS_A_LINE == 0:
                say(f"Learning rate: {rate:.1e} | Loss: {loss:.5f} | Smoothed: {found.smoothed[-1]:.5f}")
            if len(found.rates) > LEAST_STEPS:
                lowest = min(lowest, found.smoothed[-1])
            if len(found.rates) == NUM_STEPS or _has_exploded(found.smoothed, lowest):
                break
        else:
            job.state.finish_epoch(0.0)
    found = found._replace(suggested=suggested_rate(found.rates, found.smoothed))
    end = "exploded" if _has_exploded(found.smoothed, lowest) else "did not explode"
    say(f"The loss {end} up to the rate {found.rates[-1]:.1e}")
    try:
        save_figure(rate_chart(found.rates, found.losses, found.smoothed, found.suggested), PICTURE)
    except OSError as fault:
        raise UserError(f"{PICTURE}: can't be written ({fault.strerror}). Start from another folder.") from None
    say(f"Picture: {PICTURE}")
    if found.suggested is None:
        say("No rate brought the loss down: look at the data (python -m retinanet.check_data) or raise --batch_size")
        return 1
    say(f"Suggested: --learning_rate {found.suggested:.1e}, a tenth of the rate at which the loss was lowest")
    return 0


def rate_of(step: int) -> float:
    return LOWEST * (HIGHEST / LOWEST) ** (step / (NUM_STEPS - 1))


def smoothed_mean(losses: list[float]) -> float:
    """The mean of the losses, in which one counts 5% less than the next."""
    recent = np.array(losses[-200:])  # older ones count for nothing
    weights = SMOOTHING ** np.arange(len(recent))[::-1]
    return float((recent * weights).sum() / weights.sum())


def suggested_rate(rates: list[float], smoothed: list[float]) -> float | None:
    """A tenth of the rate at which the smoothed loss was lowest; None if that was where it began."""
    known = [loss for loss in smoothed if math.isfinite(loss)]
    if len(known) <= LEAST_STEPS:
        return None
    lowest = LEAST_STEPS + int(np.argmin(known[LEAST_STEPS:]))
    return None if known[lowest] >= known[LEAST_STEPS] else rates[lowest] / 10


def _has_exploded(smoothed: list[float], lowest: float) -> bool:
    return bool(smoothed) and not smoothed[-1] <= EXPLODED * lowest

"""Runs the learning rate range test (Smith, 2017): a short run shows which rates lower the loss on the user's data."""

from functools import partial
from pathlib import Path

import numpy as np

from retinanet.reports.curves import rate_chart
from retinanet.reports.figures import require_picture_place, save_figure
from retinanet.runtime.console import say
from retinanet.runtime.ranks import Ranks
from retinanet.settings.train import TrainSettings
from retinanet.training.build import build_run
from retinanet.training.engine import rest_of_epoch
from retinanet.training.sets import Sets

LOWEST, HIGHEST = 1e-7, 1.0
WINDOW = 31  # steps per median: losses vary widely from batch to batch
EXPLODED = 4  # factor above the lowest median
LEAST_FALL = 0.98  # the fraction of the first median that the lowest median must reach
STEPS_A_LINE = 25
PICTURE = Path("lr_range.png")


def find_learning_rate(settings: TrainSettings, sets: Sets) -> int:
    """Trains at growing rates, from 1e-7 to 1 or until the loss explodes; prints the rate to use and plots the losses.

    No weights are saved, and the output folder stays unchanged. Returns the exit code, 1 if no rate lowered the loss.
    """
    require_picture_place(PICTURE)
    run = build_run(settings, Ranks(), sets)
    num_steps = settings.optimisation.steps
    say(f"Trying {num_steps} learning rates from {LOWEST:g} to {HIGHEST:g}, a step each")
    rates: list[float] = []
    losses: list[float] = []
    while len(rates) < num_steps and not has_exploded(losses):
        for rate in rest_of_epoch(run, partial(rate_of, num_steps=num_steps)):
            rates.append(rate)
            losses.append(run.state.last_losses.sum().item())
            if len(rates) % STEPS_A_LINE == 0:
                say(f"Learning rate: {rate:.1e} | Loss: {losses[-1]:.5f}")
            if len(rates) == num_steps or has_exploded(losses):
                break
        else:
            run.state.finish_epoch(0.0)
    say(f"The loss {'exploded' if has_exploded(losses) else 'did not explode'} up to the rate {rates[-1]:.1e}")
    suggested = suggested_rate(rates, losses)
    if suggested is None:
        say("No rate brought the loss down: check the data (python -m retinanet.check_data) or raise --batch_size")
    else:
        say(f"Suggested: --learning_rate {suggested:.1e}, where the loss was lowest")
    save_figure(rate_chart(rates, losses, medians(losses), suggested), PICTURE)
    say(f"Picture: {PICTURE}")
    return 1 if suggested is None else 0


def rate_of(step: int, num_steps: int) -> float:
    return LOWEST * (HIGHEST / LOWEST) ** (step / (num_steps - 1))


def medians(losses: list[float]) -> np.ndarray:
    """Returns [n - WINDOW + 1]: the median of each window of WINDOW consecutive losses; NaN if a loss in it is NaN."""
    if len(losses) < WINDOW:
        return np.zeros(0)
    return np.median(np.lib.stride_tricks.sliding_window_view(np.array(losses), WINDOW), axis=1)


def suggested_rate(rates: list[float], losses: list[float]) -> float | None:
    """Returns the rate in the middle of the window with the lowest median loss; None if the loss hardly fell."""
    curve = medians(losses)
    if np.isnan(curve).all() or np.nanmin(curve) > LEAST_FALL * curve[0]:
        return None
    return rates[int(np.nanargmin(curve)) + WINDOW // 2]


def has_exploded(losses: list[float]) -> bool:
    """Returns True if the median of the last losses is NaN or far above the lowest median."""
    curve = medians(losses)
    return len(curve) > 0 and bool(np.isnan(curve[-1]) or curve[-1] > EXPLODED * np.nanmin(curve))

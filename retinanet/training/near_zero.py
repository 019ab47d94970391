"""Sums up the state of a run whose AP is nearly 0, and gives the command that checks its data."""

import math
import shlex

import numpy as np

from retinanet.checkpoints.start import NAMED_WEIGHTS
from retinanet.coco.results import Found
from retinanet.data.anchor_coverage import coverage, setup_of
from retinanet.runtime.printable import counted
from retinanet.settings.check_data import PROOF_DEPTH
from retinanet.settings.train import TrainSettings
from retinanet.training.build import Run
from retinanet.training.opening import MOST_DRAWN, check_command

NEAR_ZERO = 0.01  # a lower AP is nearly 0


def near_zero_lines(run: Run, ap: float, detections: Found) -> list[str]:
    """Returns a line about the run at the first evaluation with an AP below NEAR_ZERO, and no line at any other."""
    state, settings, training_set = run.state, run.settings, run.sets.training_set
    if ap >= NEAR_ZERO or any(earlier < NEAR_ZERO for earlier in state.ap_by_epoch.values()):
        return []
    setup = setup_of(training_set, state.network.architecture.anchors, settings.data.tiling)
    missed = coverage(training_set, setup, settings.loss, MOST_DRAWN).missed
    scores = detections.scores
    spread = f", with scores up to {scores.max():.3f} (median {np.median(scores):.3f})" if len(scores) else ""
    facts = [
        f"learning rate {max(group['lr'] for group in state.optimizer.param_groups):g}",
        *([] if math.isnan(state.clipped) else [f"{state.clipped:.0%} of the steps clipped"]),
        f"{missed:.1%} of the objects without an anchor",
        f"{counted(len(scores), 'detection')} in {counted(len(run.sets.val_set), 'val image')}{spread}",
    ]
    return [
        f"Note: AP is below {NEAR_ZERO:g} after epoch {state.epoch}: {', '.join(facts)}. This is common in the first "
        f"epochs. If it persists, check whether the data can be learned: {proof_command(settings)}"
    ]


def proof_command(settings: TrainSettings) -> str:
    """Returns the command that trains a small detector on a run's sets, from the run's initial weights if they fit."""
    network = settings.network
    fits = network.weights == "none" or (network.weights not in NAMED_WEIGHTS and network.depth == PROOF_DEPTH)
    return f"{check_command(settings)} --prove{f' --weights {shlex.quote(network.weights)}' if fits else ''}"

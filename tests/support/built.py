"""Builds small networks, states, losses and runs; arguments override the settings that a test is about."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.dataset import CocoDataset
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import PRIOR, Architecture
from retinanet.runtime.ranks import ALONE
from retinanet.settings.train import train_settings
from retinanet.training.build import Run, build_run
from retinanet.training.losses import ComputeLosses, losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.sets import load_sets
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage
from support.data_folder import NAMES, write_set
from support.scripts import TINY

CPU = torch.device("cpu")
Result = TypeVar("Result")


def small_network(
    num_classes: int = len(NAMES),
    *,
    prior: float = PRIOR,
    learn_statistics: bool = False,
    random_outputs: bool = False,
    **architecture: Any,
) -> RetinaNet:
    """Builds a network for the images of `write_set`; with `random_outputs`, its predictions differ between anchors.

    `architecture` overrides fields of an Architecture with a ResNet-18 and 8 channels.
    """
    small = Architecture(**{"depth": 18, "channels": 8, **architecture})
    network = RetinaNet(small, num_classes, prior=prior, learn_statistics=learn_statistics)
    if random_outputs:
        for head in (network.classification_head, network.regression_head):
            torch.nn.init.normal_(head.output.weight, std=0.1)
    return network


def small_losses(network: RetinaNet, device: torch.device = CPU, **options: Any) -> ComputeLosses:
    """Returns the function that computes the losses of `network`; see `losses_of` for the `options`."""
    num_classes = network.classification_head.output.out_channels // network.architecture.anchors.per_cell
    return losses_of(network, num_classes, device, **options)


def small_state(
    network: RetinaNet | None = None,
    *,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    average_decay: float | None = None,
    loss_scale: float | None = None,
    max_skipped: int = 10,
) -> TrainingState:
    """Returns the state before the first step; `average_decay` turns on weight averaging, `loss_scale` loss scaling."""
    network = network or small_network()
    return TrainingState(
        network,
        build_optimizer(network, optimizer, learning_rate, 0.0),
        CPU,
        scaler=torch.amp.GradScaler("cpu", init_scale=loss_scale) if loss_scale else None,
        average=WeightAverage(network, average_decay) if average_decay else None,
        max_skipped=max_skipped,
    )


def small_set(folder: Path, num_images: int) -> CocoDataset:
    """Writes a training set into `folder` and returns it."""
    write_set(folder, "train", num_images)
    return CocoDataset(load_annotations(folder / "train.json"), folder / "images" / "train", 64, 96)


def small_run(coco_path: Path, *flags: object) -> Run:
    """Builds the run that train.py would start with these flags."""
    settings = train_settings([str(word) for word in ("--coco_path", coco_path, *TINY, "--workers", 0, *flags)])
    return build_run(settings, ALONE, load_sets(settings, ALONE))


def once(compute: Callable[..., Result]) -> Callable[..., Result]:
    """Returns a function that computes its result in the first call, and returns that result in all others."""
    results: list[Result] = []

    def first(*arguments: object) -> Result:
        if not results:
            results.append(compute(*arguments))
        return results[0]

    return first

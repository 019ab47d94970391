"""Builds everything that a run needs for its next step, from the settings and, when resuming, from the saved run."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from retinanet.checkpoints.resume import Facts, SavedRun, require_same_run, with_saved_sides
from retinanet.checkpoints.start import build_network
from retinanet.coco.annotations import require_same_classes
from retinanet.data.batches import Loaded
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.device_feed import BadImages
from retinanet.data.sampler import AspectRatioBasedSampler
from retinanet.data.tiles import sizes_of_epoch
from retinanet.data.transforms import longest_at
from retinanet.detector.model import RetinaNet
from retinanet.runtime.device import choose_precision, make_deterministic
from retinanet.runtime.ranks import Ranks
from retinanet.settings.train import TrainSettings
from retinanet.training.compilation import LONGEST_COMPILATION, Compiled, few_sides, why_not_compiled
from retinanet.training.losses import ComputeLosses, losses_of, shared
from retinanet.training.norm_statistics import measure_statistics
from retinanet.training.optimizer import build_optimizer, rates_of_stages
from retinanet.training.sets import Sets, require_learnable
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage


class Run(NamedTuple):
    """A run that is ready for its next step."""

    settings: TrainSettings
    device: torch.device
    ranks: Ranks
    sets: Sets
    facts: Facts
    precision: torch.dtype
    state: TrainingState
    loader: DataLoader[Loaded]
    sampler: AspectRatioBasedSampler
    compute_losses: ComputeLosses
    bad_images: BadImages
    why_not_compiled: str | None  # None if the network is compiled


def build_run(settings: TrainSettings, ranks: Ranks, sets: Sets, saved: SavedRun | None = None) -> Run:
    """Returns the run at its start, or where `saved` left off. Raises UserError if `saved` and `settings` don't match.

    The settings must contain the final seed, device and number of workers.
    """
    if saved:
        settings = with_saved_sides(settings, saved)
    if ranks.is_first:
        require_learnable(settings, sets.training_set)
    device = torch.device(settings.machine.device)
    precision = choose_precision(settings.machine.precision, device)
    if settings.safety.deterministic:
        make_deterministic()
    batches = batches_of_run(settings, sets, ranks)
    was_compiled = saved.facts.compiled if saved else None
    why_not = why_not_compiled(settings.speed.compile, device, ranks, batches, was_compiled=was_compiled)
    compiled = why_not is None
    if compiled:
        ranks = ranks.waiting(
            settings.safety.timeout + LONGEST_COMPILATION
        )  # each rank compiles when it meets a new shape
    # With multi-scale training, nearly every batch has a new shape.
    has_few_shapes = compiled or not settings.data.augmentation.train_sides
    torch.backends.cudnn.benchmark = has_few_shapes and not settings.safety.deterministic
    facts = Facts(
        device=device.type,
        precision=str(precision).removeprefix("torch."),
        compiled=compiled,
        train_fingerprint=sets.train.fingerprint,
        val_fingerprint=sets.val.fingerprint,
        batch_size=settings.data.batch_size,
        num_ranks=ranks.size,
    )
    if saved:
        require_same_run(saved, settings, facts)
        require_same_classes(sets.val, saved.checkpoint.class_names, saved.checkpoint.category_ids, saved.path)
    loader, sampler = _loader(settings, device, ranks, sets, facts.compiled)
    torch.manual_seed(settings.optimisation.run_seed)
    state = _state(
        settings, device, precision, sets, saved, num_steps=sampler.first_steps(settings.optimisation.epochs)[-1]
    )
    compute_losses = losses_in(settings, state, len(sets.val.class_names), precision, ranks, compiled=compiled)
    compute_losses = shared(state.network, compute_losses, ranks)
    bad_images = BadImages(len(sets.training_set), skip=settings.data.bad_images == "skip")
    return Run(
        settings, device, ranks, sets, facts, precision, state, loader, sampler, compute_losses, bad_images, why_not
    )


def losses_in(
    settings: TrainSettings,
    state: TrainingState,
    num_classes: int,
    precision: torch.dtype,
    ranks: Ranks,
    *,
    compiled: bool,
) -> ComputeLosses:
    """Returns the function that computes a batch's losses with the network of `state`."""
    # An object of which a tile shows too little is ignored there, like a crowd region.
    ignores = settings.loss.ignore_crowds or settings.data.tiling.tiles is not None
    cuda_graphs = ranks.size == 1 and settings.optimisation.accumulate == 1
    return losses_of(
        state.network,
        num_classes,
        state.device,
        precision=precision,
        compiled=Compiled(settings.data.batch_size, cuda_graphs) if compiled else None,
        loss_settings=replace(settings.loss, ignore_crowds=ignores),
    )


def _state(
    settings: TrainSettings,
    device: torch.device,
    precision: torch.dtype,
    sets: Sets,
    saved: SavedRun | None,
    num_steps: int,
) -> TrainingState:
    measure = partial(measure_statistics, dataset=sets.training_set, device=device)
    network, random_stages = build_network(settings.network, sets.val.class_names, saved, measure)
    state = start_state(settings, network, device, precision, random_stages, num_steps)
    if saved:
        state.load_plain(saved.state, saved.path)
        if state.average:
            state.average.load(saved.checkpoint.ema, saved.path)
    return state


def start_state(
    settings: TrainSettings,
    network: RetinaNet,
    device: torch.device,
    precision: torch.dtype,
    random_stages: Sequence[str],
    num_steps: int,
) -> TrainingState:
    """Returns the initial state of a run of `num_steps` steps."""
    network.to(device)
    how = settings.optimisation
    rates = rates_of_stages(how.backbone_rate, random_stages)
    optimizer = build_optimizer(network, how.optimizer, how.learning_rate, how.weight_decay, rates)
    decay = how.average_decay(num_steps)
    average = WeightAverage(network, decay) if decay else None
    # Without a scaler, small float16 gradients would underflow.
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    return TrainingState(
        network,
        optimizer,
        device,
        scaler=scaler,
        average=average,
        max_skipped=settings.safety.max_skipped,
        random_stages=random_stages,
    )


def _loader(
    settings: TrainSettings, device: torch.device, ranks: Ranks, sets: Sets, compiled: bool
) -> tuple[DataLoader[Loaded], AspectRatioBasedSampler]:
    return training_loader(
        sets.training_set,
        loader_settings(settings, device, compiled=compiled),
        seed=settings.optimisation.run_seed,
        augmentation=settings.data.augmentation,
        repeat_threshold=settings.data.repeat_threshold,
        tiles=settings.data.tiling.tiles,
        drop_last=settings.data.drop_last,
        accumulate=settings.optimisation.accumulate,
        ranks=ranks,
    )


def loader_settings(settings: TrainSettings, device: torch.device, *, compiled: bool = False) -> LoaderSettings:
    assert settings.machine.workers is not None
    return LoaderSettings(
        settings.data.batch_size,
        settings.machine.workers,
        device,
        timeout=settings.safety.timeout,
        padded_sides=tuple(sides_to_compile(settings)) if compiled else None,
    )


def sides_to_compile(settings: TrainSettings) -> list[int]:
    """Returns the lengths to pad image sides to, from the smallest shorter side to the largest longer side."""
    sides = settings.data.augmentation.train_sides or (settings.data.min_side,)
    return few_sides(min(sides), longest_at(max(sides), settings.data.min_side, settings.data.max_side))


def batches_of_run(settings: TrainSettings, sets: Sets, ranks: Ranks) -> int:
    """Returns the result of `num_batches` for the images and tiles of the run's training set."""
    tiling = settings.data.tiling
    return num_batches(settings, len(sizes_of_epoch(sets.training_set, tiling.tiles, tiling.min_visible)), ranks)


def num_batches(settings: TrainSettings, num_images: int, ranks: Ranks) -> int:
    """Returns the approximate number of batches that each rank will train on."""
    optimisation = settings.optimisation
    if settings.instead_of_training:
        steps = optimisation.steps if optimisation.find_lr else 4 * (settings.safety.verify_resume or 0)
        return steps * optimisation.accumulate
    return optimisation.epochs * num_images // (settings.data.batch_size * ranks.size)

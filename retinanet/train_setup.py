"""From train.py's flags to all that a run needs, checked before the first file is written."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from retinanet.annotations import Annotations, has_objects, require_same_classes
from retinanet.augment_flags import augment_settings
from retinanet.bad_images import BadImages
from retinanet.checkpoint import Checkpoint
from retinanet.command_line import load_set, plain_settings, say
from retinanet.compute import STEPS_WORTH_COMPILING, ComputeLosses, lacking_for_compilation, losses_of
from retinanet.data import CocoDataset
from retinanet.distributed import Ranks, shared
from retinanet.engine import train_steps
from retinanet.errors import UserError
from retinanet.evaluate import require_backend
from retinanet.image_cache import ImageCache, spare_memory
from retinanet.loaders import training_loader
from retinanet.loss import LossSettings
from retinanet.network_setup import build_network, check_network_flags
from retinanet.optimizer import build_optimizer
from retinanet.precision import choose_precision, make_deterministic
from retinanet.resume import Facts, SavedRun, require_same_run
from retinanet.samplers import AspectRatioBasedSampler
from retinanet.schedule import Schedule
from retinanet.stopping import STOP
from retinanet.structures import Batch
from retinanet.train_flags import build_parser
from retinanet.training_state import TrainingState
from retinanet.transforms import few_sides, longest_at
from retinanet.weight_average import WeightAverage


class Data(NamedTuple):
    train: Annotations
    val: Annotations
    training_set: CocoDataset
    val_set: CocoDataset


class Job(NamedTuple):
    """A run, ready for its next step."""

    args: argparse.Namespace
    ranks: Ranks
    data: Data
    facts: Facts
    precision: torch.dtype
    state: TrainingState
    loader: DataLoader[Batch]
    sampler: AspectRatioBasedSampler
    compute_losses: ComputeLosses
    bad_images: BadImages


def load_data(args: argparse.Namespace, ranks: Ranks) -> Data:
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": args.max_pixels}
    train, training_set = load_set(
        args.coco_path,
        args.train_set,
        **sides,
        require_images=args.bad_images == "stop",
        keep_crowds=args.ignore_crowds,
    )
    val, val_set = load_set(args.coco_path, args.val_set, **sides)
    if ranks.is_first:
        val_set.check_headers()  # or a bad one would end the run at its first evaluation, epochs from now
    if has_objects(val) and not (args.find_lr or args.verify_resume):
        require_backend(args.eval_backend)
    require_same_classes(val, train.class_names, train.category_ids, train.path)
    together = args.batch_size * args.accumulate * ranks.size
    if args.drop_last and len(training_set) < together:
        raise UserError(
            f"{train.path}: its {len(training_set)} images don't fill one batch of {together}, and --drop_last leaves "
            "them all out. Lower --batch_size, or leave --drop_last away."
        )
    num_full, rest = divmod(len(training_set), together)
    num_steps = args.epochs * (num_full + (rest > 0 and not args.drop_last))
    if args.warmup_steps >= num_steps and not args.find_lr:
        raise UserError(
            f"{train.path}: {args.epochs} epochs of its {len(training_set)} images are {num_steps} steps, which "
            f"--warmup_steps {args.warmup_steps} would not leave. Give fewer, or more --epochs."
        )
    return Data(train, val, training_set, val_set)


def build_job(args: argparse.Namespace, ranks: Ranks, data: Data, saved: SavedRun | None = None) -> Job:
    """The run at its start, or where `saved` left it. UserError where the two don't fit together."""
    precision = choose_precision(args.precision, args.device)
    if args.deterministic:
        make_deterministic()
    compiled = _is_compiled(args, ranks, args.epochs * len(data.training_set) // args.batch_size)
    facts = Facts(
        device=args.device.type,
        precision=str(precision).removeprefix("torch."),
        compiled=compiled,
        train_fingerprint=data.train.fingerprint,
        val_fingerprint=data.val.fingerprint,
        batch_size=args.batch_size,
        num_ranks=ranks.size,
    )
    if saved:
        require_same_run(saved, plain_settings(args), _defaults(), facts)
        require_same_classes(data.val, saved.checkpoint.class_names, saved.checkpoint.category_ids, saved.path)
    torch.manual_seed(args.seed)
    network = build_network(args, data.val.class_names, saved).to(args.device)
    optimizer = build_optimizer(network, args.optimizer, args.learning_rate, args.weight_decay, args.backbone_rate)
    average = WeightAverage(network, args.ema_decay) if args.ema_decay else None
    # float16's small gradients would be lost without it.
    scaler = torch.amp.GradScaler(args.device.type, enabled=precision == torch.float16)
    state = TrainingState(network, optimizer, args.device, scaler=scaler, average=average, max_skipped=args.max_skipped)
    loader, sampler = training_loader(
        data.training_set,
        batch_size=args.batch_size,
        seed=args.seed,
        workers=args.workers,
        pin_memory=args.device.type == "cuda",
        drop_last=args.drop_last,
        settings=augment_settings(args),
        sides=sides_to_compile(args) if compiled else None,
        timeout=args.timeout,
        accumulate=args.accumulate,
        rank=ranks.rank,
        num_ranks=ranks.size,
    )
    compute_losses = losses_of(
        network,
        len(data.val.class_names),
        args.device,
        precision=precision,
        compiled_batch_size=args.batch_size if compiled else None,
        cuda_graphs=args.accumulate == 1,
        loss_settings=LossSettings(*(getattr(args, name) for name in LossSettings._fields)),
    )
    if saved:
        state.load_plain(saved.state, saved.path)
        if average:
            average.load(saved.checkpoint.ema, saved.path)
    bad_images = BadImages(len(data.training_set), skip=args.bad_images == "skip")
    compute_losses = shared(network, compute_losses, ranks)
    return Job(args, ranks, data, facts, precision, state, loader, sampler, compute_losses, bad_images)


def sides_to_compile(args: argparse.Namespace) -> list[int]:
    """Sides to pad to, from the shortest to the longest that an image may have."""
    sides = args.train_sides or [args.min_side]
    return few_sides(min(sides), longest_at(max(sides), args.min_side, args.max_side))


def _defaults() -> dict[str, Any]:
    parser = build_parser()
    args = parser.parse_args([])
    check_network_flags(parser, args)
    return plain_settings(args)


def add_cache(training_set: CocoDataset) -> None:
    training_set.cache = cache = ImageCache(training_set.sizes, spare_memory())
    say(f"Image cache: room for {cache.num_images} of {len(training_set)} images, {cache.num_bytes / 1e9:.2f} GB")


def _is_compiled(args: argparse.Namespace, ranks: Ranks, num_steps: int) -> bool:
    """Whether the network is compiled: on a GPU, if the run is long enough to repay it, unless the user says."""
    if args.compile != "auto":
        return args.compile == "on"
    worth = args.device.type == "cuda" and ranks.size == 1 and num_steps >= STEPS_WORTH_COMPILING
    return worth and lacking_for_compilation(args.device) is None


def rest_of_epoch(job: Job, rate_of: Callable[[int], float] | None = None) -> Iterator[float]:
    """Train what is left of the epoch in progress; yields the rate of each step when it is done.

    `rate_of` gives the rate of a step of the run, instead of the flags' schedule. Raises Stopped where a signal asks
    for it, at a moment to go on from.
    """
    args, state, sampler = job.args, job.state, job.sampler
    sampler.start_at(state.epoch, state.iteration)
    first_step = state.epoch * len(sampler)
    scheduled = Schedule(
        args.learning_rate, len(sampler), args.epochs, args.schedule, args.milestones, args.warmup_steps
    ).rate
    bar = tqdm(
        job.loader,
        f"Epoch {state.epoch}",
        initial=state.iteration * args.accumulate,
        total=len(sampler) * args.accumulate,
        leave=False,
        disable=None if job.ranks.is_first else True,
    )
    yield from train_steps(
        state,
        # A rank that stopped in the middle of nowhere would leave the others waiting for it.
        job.bad_images.passing(STOP.stoppable(bar) if job.ranks.size == 1 else bar),
        rates=list(map(rate_of or scheduled, range(first_step + state.iteration, first_step + len(sampler)))),
        clip_norm=args.clip_norm,
        compute_losses=job.compute_losses,
        accumulate=args.accumulate,
        ranks=job.ranks,
    )


def snapshot(job: Job) -> Checkpoint:
    args, state, val = job.args, job.state, job.data.val
    return Checkpoint(
        model=state.network.state_dict(),
        depth=args.depth,
        channels=args.channels,
        class_names=val.class_names,
        category_ids=val.category_ids,
        min_side=args.min_side,
        max_side=args.max_side,
        batch_size=args.batch_size,
        epoch=state.epoch,
        settings=plain_settings(args),
        head_norm=args.head_norm,
        level_code=state.network.level_code,
        ema=state.average.weights if state.average else None,
        anchors=state.network.anchor_shapes,
    )

"""The seeds of a command: one drawn for all ranks, or several, and how far their numbers lie apart."""

import argparse
import secrets
from contextlib import nullcontext
from dataclasses import fields
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from retinanet.checkpoints.resume import Facts, SavedRun, require_same_run
from retinanet.checkpoints.start import build_network
from retinanet.cli.augment_flags import augment_settings
from retinanet.cli.flags import detect_settings, plain_settings
from retinanet.cli.train_checks import _defaults
from retinanet.coco.annotations import Annotations, has_objects, require_same_classes
from retinanet.coco.json_values import is_id
from retinanet.data.dataloader import training_loader
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.device_feed import BadImages
from retinanet.data.image_cache import ImageCache, spare_memory
from retinanet.data.learnable import require_objects, require_reach
from retinanet.data.sampler import AspectRatioBasedSampler
from retinanet.data.settings import FROM_ORIGINAL, ZOOM_OUT
from retinanet.data.transforms import longest_at
from retinanet.detector.settings import LossSettings
from retinanet.detector.structures import Batch
from retinanet.evaluation.coco_table import AP, AP50, CocoTable, evaluate, require_backend
from retinanet.evaluation.detect_set import detect_all
from retinanet.runtime.console import say
from retinanet.runtime.device import choose_precision, make_deterministic
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import Ranks, num_local_ranks
from retinanet.runtime.signals import STOP
from retinanet.training.losses import (
    STEPS_WORTH_COMPILING,
    ComputeLosses,
    few_sides,
    lacking_for_compilation,
    losses_of,
    shared,
)
from retinanet.training.optimizer import build_optimizer
from retinanet.training.settings import RANDOM, SEED
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage


def settled_seed(given: int | str, saved: SavedRun | None, ranks: Ranks) -> int:
    """`given` by --seed; where that is RANDOM, the seed of the `saved` run, or one that rank 0 draws for all."""
    if given != RANDOM:
        return int(given)
    if saved is None:
        seed = ranks.from_first(lambda: secrets.randbelow(2**31))
        say(f"--seed random: drew {seed}")
        return seed
    seed = saved.checkpoint.settings.get("seed", SEED)
    if not is_id(seed) or seed < 0:
        raise UserError(f"{saved.path}: its run has the seed {seed!r}. Start a new run without --resume.")
    say(f"--seed random: resuming with the saved run's {seed}")
    return seed


def runs_of(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The flags of each run: with --seeds its seed, and a folder of its own below --output_path."""
    if not args.seeds:
        return [args]
    folder = args.output_path
    return [
        argparse.Namespace(**{**vars(args), "seed": seed, "output_path": folder / f"seed{seed}"}) for seed in args.seeds
    ]


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
        _require_learnable(args, training_set)
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


def _require_learnable(args: argparse.Namespace, training_set: CocoDataset) -> None:
    """UserError where no step would have an object to learn."""
    require_objects(training_set)
    augment = augment_settings(args)
    # Objects that are enlarged or made smaller at random may be reached after all, and other matchers reach further.
    if args.matcher == "iou" and not {*FROM_ORIGINAL, ZOOM_OUT} & {*augment.names}:
        require_reach(training_set, args.foreground_iou, augment.sides, flip=augment.flip > 0)


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
        loss_settings=LossSettings(*(getattr(args, field.name) for field in fields(LossSettings))),
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


def add_cache(training_set: CocoDataset, ranks: Ranks) -> None:
    """Give each rank of this machine an equal share of its spare memory to keep images in."""
    num_sharing = num_local_ranks(ranks)
    budget = spare_memory() // num_sharing
    ranks.wait()  # until all have counted: what one takes is no longer free
    training_set.cache = cache = ImageCache(training_set.sizes, budget)
    each = f" in each of {num_sharing} processes" if num_sharing > 1 else ""
    say(f"Image cache: room for {cache.num_images} of {len(training_set)} images, {cache.num_bytes / 1e9:.2f} GB{each}")


def _is_compiled(args: argparse.Namespace, ranks: Ranks, num_steps: int) -> bool:
    """Whether the network is compiled: on a GPU, if the run is long enough to repay it, unless the user says."""
    if args.compile != "auto":
        return args.compile == "on"
    worth = args.device.type == "cuda" and ranks.size == 1 and num_steps >= STEPS_WORTH_COMPILING
    return worth and lacking_for_compilation(args.device) is None


def evaluate_weights(job: Job) -> float:
    """Print the table of the weights that test.py takes, the averaged ones if there are any, and return their AP."""
    average = job.state.average
    if average and has_objects(job.data.val):
        raw = _table(job)
        if raw:
            say(f"Raw weights: AP {raw.numbers[AP]:.3f}, AP50 {raw.numbers[AP50]:.3f}. The averaged ones:")
    with average.in_place() if average else nullcontext():
        table = _table(job)
    if table is None:
        return 0.0
    say(*table.text.splitlines())
    job.state.numbers = table.by_name(job.data.val.class_names)
    return table.numbers[AP]


def _table(job: Job) -> CocoTable | None:
    """The table of the val set; None where it has no objects, or at another rank than 0."""
    args, val = job.args, job.data.val
    with STOP.at_once():  # nothing in here changes what is saved then, the weights least of all
        rows = detect_all(
            job.state.network,
            job.data.val_set,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            precision=job.precision,
            detection=detect_settings(args),
            timeout=args.timeout,
            ranks=job.ranks,
        )
        if not job.ranks.is_first:
            return None
        if not has_objects(val):
            say(f"{val.path} has no objects to compare with, so there is no table")
            return None
        return evaluate(val, rows, args.eval_backend)

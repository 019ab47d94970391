"""Defines the flags of train.py, and recipes that set many flags at once."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retinanet.detector.settings import (
    BOX_LOSSES,
    CHANNELS,
    CLASS_LOSSES,
    DEPTHS,
    HEAD_NORMS,
    MATCHERS,
    NORM_GROUPS,
    PRIOR,
    STAGES,
    AnchorShapes,
    Architecture,
    LossSettings,
)
from retinanet.runtime.errors import UserError
from retinanet.runtime.json_files import read_json
from retinanet.settings.options import (
    Given,
    flat,
    number_above,
    number_from,
    option,
    options_of,
    parsed,
    part,
    values_read,
    whole_number,
    with_values,
)
from retinanet.settings.shared import (
    FROM_ORIGINAL,
    LEAST_SIDE,
    MAX_SIDE,
    MIN_SIDE,
    RAW,
    Anchors,
    Augmentation,
    Detection,
    Machine,
    TrainTiles,
    check_sides,
    coco_path_option,
    eval_backend_option,
    exif_option,
    log_dir_option,
    log_time_option,
    max_side_option,
    min_side_option,
    white_level_option,
)

RECORD = "run.json"  # the name of a run's record
PUBLISHED, STRONG = "published", "strong"
STEP, COSINE = SCHEDULES = ("step", "cosine")
# The learning-rate multiplier of the pretrained ResNet, and the limit on its rate with Adam and AdamW: at a higher
# rate, the ResNet would forget what it has learned.
RESNET_SHARE, RESNET_RATE = 0.15, 3e-5
SIDE_SHARES = (0.8, 0.9, 1.0, 1.1, 1.2)  # fractions of --min_side, for multi-scale training
SIDES_FROM_EPOCHS = 12  # in shorter runs, an object appears too rarely at each size
# A recipe's values are defaults, so a given flag still wins; dependent_values adds defaults that depend on other flags.
RECIPES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    STRONG: {
        "schedule": COSINE,
        "warmup_share": 0.05,
        "ema_share": 0.05,
        "learning_rate": 2e-4,
        "augment": ("photometric",),
        "matcher": "low_quality",
        "box_loss": "giou",
        "ignore_crowds": True,
        "iou_branch": True,
        "norm_statistics": "auto",
    },
}
# Pairs of flags for the same setting: if one is given, it replaces the other.
INSTEAD = (("warmup_share", "warmup_steps"), ("ema_share", "ema_decay"))

DEPTHS_OF_V2 = (50, 101, 152)  # the depths for which torchvision has newer ImageNet weights
# torchvision's COCO detector, retinanet_resnet50_fpn_v2.
DETECTOR = Architecture(50, 256, "group")
NORM_STATISTICS = ("auto", "frozen", "learned")
OPTIMIZERS = ("adam", "adamw", "sgd")
TENSORBOARD, MLFLOW, WANDB = TRACKERS = ("tensorboard", "mlflow", "wandb")
PUBLISHED_SEED = 3407  # the seed of the published runs
RANDOM = "random"  # the seed that rank 0 draws for all ranks
AUTO_BATCH = 0  # a --batch_size that is measured at the start
LEAST_WINDOW = 2  # the fewest steps that an average covers


def _batch_size(text: str) -> int:
    return AUTO_BATCH if text == "auto" else whole_number(1)(text)


def _keep(text: str) -> int | None:
    return None if text == "all" else whole_number(1)(text)


def _seed(text: str) -> int | str:
    """Parses a whole number or RANDOM; a random seed is drawn later, because here each rank would draw its own."""
    return text if text == RANDOM else whole_number(0)(text)


@dataclass(frozen=True)
class Data:
    coco_path: Path = coco_path_option()
    train_set: str = option("train", "the set to train on")
    val_set: str = option("val", "the set to evaluate on")
    min_side: int = min_side_option(MIN_SIDE)
    max_side: int = max_side_option(MAX_SIDE)
    exif: str = exif_option()
    white_level: int = white_level_option()
    augmentation: Augmentation = part(Augmentation)
    tiling: TrainTiles = part(TrainTiles)
    batch_size: int = option(
        2,
        "images per batch and process, 1 or more; auto (GPU only): as many as fit in memory, measured at the start",
        _batch_size,
        may_change=True,
    )
    repeat_threshold: float = option(
        0.0,
        "repeat-factor sampling for rare classes: an image with a class that occurs in a fraction f of the images is "
        "shown sqrt(threshold / f) times an epoch, if that is more than once; try 0.1; 0: each image once",
        number_from(0, 1),
    )
    drop_last: bool = option(False, "leave out the images that don't fill a batch", bool)
    bad_images: str = option(
        "stop",
        "when an image can't be read: stop, or skip it (up to 1 in 100 images, or 5 in a small set; the run stops if "
        "there are more)",
        ("stop", "skip"),
        may_change=True,
    )

    def check(self, given: Given) -> None:
        check_sides(self.min_side, self.max_side)
        self.augmentation.check()
        self.tiling.check(given)


@dataclass(frozen=True)
class Network:
    """Defines the flags for the network and the weights that training starts from."""

    depth: int = option(Architecture().depth, "depth of the ResNet", DEPTHS)
    channels: int = option(CHANNELS, "width of the feature pyramid and the heads", whole_number(1))
    weights: str = option(
        "imagenet",
        "weights to start from. ResNet only: imagenet, imagenet_v2 (torchvision's old or new weights, downloaded "
        "once), none, or a FILE with a state dict from torchvision or timm, which may be partial. Whole detector: coco "
        "(torchvision's retinanet_resnet50_fpn_v2, downloaded once), a FILE with the state dict of a RetinaNet from "
        "torchvision, yhenon's pytorch-retinanet or ODTK, or a checkpoint of train.py",
    )
    freeze_stages: int = option(
        0,
        "number of ResNet stages to freeze: 1 the stem, 2 the stem and layer1, ... 5 all",
        whole_number(0, len(STAGES)),
    )
    head_norm: str = option("none", "normalisation in the heads (default: none; group with --weights coco)", HEAD_NORMS)
    norm_statistics: str = option(
        "frozen",
        "batch-norm statistics: frozen as loaded; auto, frozen too, but statistics that the weights file lacks are "
        "measured on training images first; learned (default: frozen; learned with --weights none)",
        NORM_STATISTICS,
    )
    prior: float = option(
        PRIOR, "initial score of every anchor and class; it sets the classification bias", number_above(0, 0.999)
    )
    iou_branch: bool = option(
        False,
        "also predict the IoU of each box with its object, and include it in the score",
        bool,
        off="turn off the IoU branch of --recipe strong",
    )
    anchors: Anchors = part(Anchors)

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.depth, self.channels, self.head_norm, self.anchors.shapes, self.iou_branch)

    def check(self) -> None:
        self.anchors.check()
        if self.weights == "coco":
            require_detector(self, "--weights coco")
        if self.head_norm == "group" and self.channels % NORM_GROUPS:
            raise UserError(
                f"--channels {self.channels} is not a multiple of {NORM_GROUPS}, which --head_norm group needs. Choose "
                "one that is."
            )
        if self.weights == "imagenet_v2" and self.depth not in DEPTHS_OF_V2:
            depths = ", ".join(map(str, DEPTHS_OF_V2))
            raise UserError(
                f"--weights imagenet_v2 only exists for --depth {depths}. Use one of these, or --weights imagenet."
            )
        if self.weights == "none" and self.norm_statistics != "learned":
            raise UserError(
                f"--norm_statistics {self.norm_statistics} needs pretrained weights; with --weights none the "
                "statistics are learned. Remove one of the two."
            )
        if self.weights == "none" and self.freeze_stages:
            raise UserError("--freeze_stages would freeze the random weights of --weights none. Remove one of the two.")


@dataclass(frozen=True)
class Loss(LossSettings):
    """Defines the flags for LossSettings."""

    alpha: float = option(LossSettings.alpha, "focal loss: weight of the objects", number_from(0, 1))
    gamma: float = option(LossSettings.gamma, "focal loss: how strongly hard anchors are favoured", number_from(0))
    beta: float = option(LossSettings.beta, "smooth L1 loss: the error above which it is linear", number_above(0))
    foreground_iou: float = option(
        LossSettings.foreground_iou,
        "an anchor is foreground if its IoU with an object is at least this",
        number_above(0, 1),
    )
    background_iou: float = option(
        LossSettings.background_iou,
        "an anchor is background if its IoU with every object is below this",
        number_from(0, 1),
    )
    matcher: str = option(
        LossSettings.matcher,
        "how anchors are matched to objects: iou, by --foreground_iou; low_quality, each object also with the anchors "
        "that overlap it most, however little; atss, by an IoU threshold adapted to each object (ATSS)",
        MATCHERS,
    )
    class_loss: str = option(
        LossSettings.class_loss,
        "focal: the target score of an object is 1; quality: the IoU of its predicted box (quality focal loss)",
        CLASS_LOSSES,
    )
    box_loss: str = option(LossSettings.box_loss, "smooth L1 on the deltas, or GIoU on the boxes", BOX_LOSSES)
    ignore_crowds: bool = option(
        LossSettings.ignore_crowds,
        "ignore anchors in crowd regions instead of training them as background",
        bool,
        off="train anchors in crowd regions as background, despite --recipe strong",
    )

    def check(self, given: Given) -> None:
        if self.background_iou > self.foreground_iou:
            raise UserError(
                f"--background_iou {self.background_iou} is above --foreground_iou {self.foreground_iou}. Lower the "
                "first or raise the second."
            )
        for name in ("foreground_iou", "background_iou"):
            if self.matcher == "atss" and name in given.changed:
                raise UserError(f"--matcher atss computes its own IoU thresholds. Remove --{name}.")
        if self.class_loss == "quality":
            given.refuse(("alpha",), "only applies to --class_loss focal. Remove it, or use that loss.")
        if self.box_loss == "giou":
            given.refuse(("beta",), "only applies to --box_loss smooth_l1. Remove it, or use that loss.")


@dataclass(frozen=True)
class Optimisation:
    epochs: int = option(72, "passes over the training set", whole_number(1), may_change=True)
    optimizer: str = option("adam", "optimiser; sgd has momentum 0.9", OPTIMIZERS)
    learning_rate: float = option(
        1e-4, "peak learning rate, after the warm-up; --find_lr suggests one", number_above(0)
    )
    backbone_rate: tuple[float, ...] = option(
        (1.0,),
        "multiplier of the learning rate for the pretrained ResNet stages (others keep the full rate), such as 0.1; or "
        f"one for each stage: {', '.join(STAGES)}",
        number_above(0),
        nargs="+",
    )
    weight_decay: float = option(
        0.0, "weight decay, on all weights except biases and normalisation scales", number_from(0)
    )
    schedule: str = option(
        STEP,
        "learning rate: step, divided by 10 at each of --milestones; cosine, along a cosine to 0 at the end of the run",
        SCHEDULES,
    )
    milestones: tuple[int, ...] = option(
        (48, 64), "epochs at whose start the learning rate is divided by 10", whole_number(0), nargs="*"
    )
    warmup_steps: int = option(
        0, "linear warm-up: steps over which the learning rate rises from near 0", whole_number(0)
    )
    warmup_share: float = option(0.0, "the same as a fraction of the run's steps, such as 0.05", number_from(0, 0.9))
    accumulate: int = option(1, "gradient accumulation: batches per optimiser step", whole_number(1))
    ema_decay: float = option(
        0.0,
        "also keep an exponential moving average of the weights with this decay, such as 0.999; 0: none",
        number_from(0, 0.999999),
    )
    ema_share: float = option(
        0.0,
        "the same, with a decay that averages over about this fraction of the run's steps, such as 0.05",
        number_from(0, 0.5),
    )
    clip_norm: float = option(
        0.1, "limit on the gradient's norm; a large number, such as 1e9, turns clipping off", number_above(0)
    )
    find_lr: bool = option(
        False,
        "instead of training, try learning rates from 1e-7 to 1, suggest one and draw the losses",
        bool,
        may_change=True,
        repeated=False,
    )
    steps: int = option(
        300,
        "with --find_lr: number of learning rates to try",
        whole_number(50),
        may_change=True,
        repeated=False,
    )
    seed: int | str = option(
        PUBLISHED_SEED, "the seed; random draws and prints one, and a resumed run keeps its own", _seed
    )
    seeds: tuple[int, ...] | None = option(
        None,
        "instead of --seed: train one run per seed, in {output_path}/seed{N}, and print mean and spread",
        whole_number(0),
        nargs="+",
        may_change=True,
        repeated=False,
    )

    @property
    def run_seed(self) -> int:
        """Returns the seed as a number; a random seed must already have been drawn."""
        assert isinstance(self.seed, int)
        return self.seed

    @property
    def depends_on_epochs(self) -> bool:
        """Returns True if a step's learning rate or weight averaging depends on the length of the whole run."""
        return self.schedule != STEP or bool(self.warmup_share) or bool(self.ema_share)

    def num_warmup_steps(self, num_steps: int) -> int:
        """Returns the number of warm-up steps in a run of `num_steps` steps."""
        return self.warmup_steps or round(self.warmup_share * num_steps)

    def average_decay(self, num_steps: int) -> float:
        """Returns the decay of the weights' average in a run of `num_steps` steps; 0 means no average."""
        if not self.ema_share:
            return self.ema_decay
        return 1 - 1 / max(LEAST_WINDOW, self.ema_share * num_steps)

    def check(self, given: Given, freeze_stages: int) -> None:
        if self.schedule != STEP and "milestones" in given.changed:
            raise UserError("--milestones only apply to --schedule step. Remove them, or use that schedule.")
        for name, other in INSTEAD:
            if {name, other} <= given.changed:
                raise UserError(f"--{name} and --{other} both set the same thing. Remove one of the two.")
        if len(self.backbone_rate) not in (1, len(STAGES)):
            raise UserError(
                f"--backbone_rate has {len(self.backbone_rate)} values. Set one, or {len(STAGES)}: one per stage."
            )
        if freeze_stages == len(STAGES) and "backbone_rate" in given.changed:
            raise UserError(
                f"--freeze_stages {len(STAGES)} leaves nothing to train at --backbone_rate. Remove one of the two."
            )
        if not self.find_lr:
            given.refuse(("steps",), "only applies to --find_lr. Remove it; training takes --epochs.")
        if self.seeds:
            given.refuse(("seed",), "is for a single run. Remove it, or --seeds.")
            if len(set(self.seeds)) < len(self.seeds):
                raise UserError("--seeds: a seed is listed twice. List each seed once.")


@dataclass(frozen=True)
class Speed:
    compile: str = option(
        "auto",
        "torch.compile the step, with batches padded to a few shapes; auto: on a GPU, if the run is long enough",
        ("auto", "on", "off"),
        may_change=True,
    )
    cache: str = option(
        "none",
        "ram: keep decoded and resized training images in shared memory, as many as fit in half of what is free; with "
        "--tile, at their original size",
        ("none", "ram"),
        may_change=True,
        repeated=False,
    )

    def check(self, data: Data) -> None:
        augmentation = data.augmentation
        resizing = (
            ("train_sides", augmentation.train_sides or ()),
            ("augment", FROM_ORIGINAL & {*(augmentation.augment or ())}),
        )
        for flag, values in resizing if self.cache == "ram" and not data.tiling.tile else ():
            if values:
                raise UserError(
                    f"--cache ram keeps images of one size, which doesn't suit --{flag} "
                    f"{' '.join(map(str, sorted(values)))}. Remove one of the two."
                )


@dataclass(frozen=True)
class Output:
    output_path: Path = option(
        Path("output"), "folder of the checkpoints and run.json", Path, may_change=True, repeated=False
    )
    resume: bool = option(
        False,
        "resume the run in --output_path, with the same numbers; start one if there is none",
        bool,
        may_change=True,
        repeated=False,
    )
    save_every: int = option(
        0,
        "steps between saves of last.pt within an epoch, such as 500; 0: only at the end of epochs and at signals",
        whole_number(0),
        may_change=True,
    )
    eval_every: int = option(10, "epochs between evaluations", whole_number(1), may_change=True)
    keep: int | None = option(
        None,
        "how many of the newest retinanet_epoch{N}.pt to keep, 1 or more, or all; older ones are removed once a newer "
        "one is written. best.pt, model_final.pt, last.pt and previous.pt stay (default: all)",
        _keep,
        may_change=True,
    )
    patience: int = option(
        0,
        "end the run after this many evaluations in a row without a higher AP; 0: never",
        whole_number(0),
        may_change=True,
    )
    log_every: int = option(100, "steps between log lines", whole_number(1), may_change=True)
    log_dir: Path | None = log_dir_option()
    log_time: bool = log_time_option()
    track: tuple[str, ...] | None = option(
        None,
        "also send the log's numbers to these experiment trackers (pip install them first)",
        TRACKERS,
        nargs="+",
        may_change=True,
        repeated=False,
    )

    def check(self) -> None:
        kinds = self.track or ()
        if len(set(kinds)) < len(kinds):
            raise UserError(f"--track {' '.join(kinds)}: a tracker is listed twice. List each tracker once.")


@dataclass(frozen=True)
class Safety:
    max_skipped: int = option(
        10,
        "skip steps with a non-finite loss or gradient, and end the run after this many in a row",
        whole_number(1),
        may_change=True,
    )
    timeout: float = option(
        60.0,
        "seconds without an answer from a loader worker or another process, after which the run ends",
        number_above(0, 10**6),
        may_change=True,
        repeated=False,
    )
    deterministic: bool = option(False, "make a GPU repeat its numbers to the last digit; slower", bool)
    verify_resume: int | None = option(
        None,
        "instead of training, compare 2N steps bit for bit with N steps, a checkpoint and N more",
        whole_number(1),
        metavar="N",
        may_change=True,
        repeated=False,
    )


@dataclass(frozen=True)
class TrainSettings:
    """A run's settings, stored flat in run.json, logs and checkpoints. The defaults are those of --recipe published."""

    recipe: str = option(
        PUBLISHED,
        "defaults of the other flags: published, the plain recipe of the published runs (Adam at 1e-4, 72 epochs); "
        "strong, for more accuracy on small datasets: +0.031 AP with three seeds (benchmarks/accuracy.md)",
        tuple(RECIPES),
        may_change=True,
    )
    from_run: Path | None = option(
        None,
        "repeat the run that wrote this run.json, or the one in this folder: its settings become the defaults of the "
        "other flags, except for paths and settings of the machine (docs/training.md)",
        Path,
        metavar="FILE",
        may_change=True,
        repeated=False,
    )
    data: Data = part(Data, "data")
    network: Network = part(Network, "network")
    loss: Loss = part(Loss, "loss")
    optimisation: Optimisation = part(Optimisation, "optimisation")
    speed: Speed = part(Speed, "speed")
    output: Output = part(Output, "output")
    detection: Detection = part(Detection, "detection")
    eval_backend: str = eval_backend_option()
    safety: Safety = part(Safety, "safety")
    machine: Machine = part(Machine, "machine")
    given: frozenset[str] = frozenset()  # the names of the flags that the command line gave

    @property
    def instead_of_training(self) -> list[str]:
        """Returns the given flags that make the command do something other than train."""
        values = {"--verify_resume": self.safety.verify_resume, "--find_lr": self.optimisation.find_lr}
        return [flag for flag, value in values.items() if value]

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        self.network.check()
        self.data.check(given)
        self.loss.check(given)
        self.optimisation.check(given, self.network.freeze_stages)
        self.speed.check(self.data)
        self.output.check()
        instead = self.instead_of_training
        if len(instead) > 1:
            raise UserError(f"{instead[0]} and {instead[1]} each replace the training. Remove one of the two.")
        for name in ("resume", "seeds", "log_dir", "track"):
            if instead and name in given.changed:
                raise UserError(f"{instead[0]} doesn't save a run, so --{name} has no effect. Remove --{name}.")


# Flags that a resumed run may change: they don't affect the numbers, or their effect is compared as one of the Facts.
MAY_CHANGE = frozenset(name for name, how in options_of(TrainSettings).items() if how.may_change)


def train_settings(argv: list[str] | None = None) -> TrainSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Train a RetinaNet on a COCO-format dataset."
    settings, given = parsed(TrainSettings, description, argv, most_used=MOST_USED)
    return settled(settings, given)


def settled(settings: TrainSettings, given: Given) -> TrainSettings:
    """Returns `settings`, in which the recipe or the record in --from_run sets each flag that wasn't `given`.

    Raises UserError if flags contradict each other.
    """
    defaults, chosen = RECIPES[settings.recipe], frozenset[str]()
    if settings.from_run:
        if "recipe" in given.names:
            raise UserError("--from_run takes the record's recipe, too. Remove --recipe or --from_run.")
        defaults, chosen = recorded_values(settings.from_run)
    settings = with_values(settings, {name: defaults[name] for name in defaults.keys() - given.names})
    defaults = dependent_values(settings, given)
    settings = with_values(settings, {name: defaults[name] for name in defaults.keys() - given.names - chosen})
    try:
        settings.check(given)
    except UserError as error:
        if settings.from_run:
            raise UserError(f"{error} Flags that were not given come from {settings.from_run}.") from None
        raise
    return replace(settings, given=given.names)


def recorded_values(path: Path) -> tuple[dict[str, Any], frozenset[str]]:
    """Returns a run's recorded settings, for use as a recipe, and the names of those that no default may replace.

    `path` is the record, or a folder that holds one. A setting whose value follows from other flags is left out and
    derived again, as with a recipe. Raises UserError if the file isn't a record, or holds a value that
    the setting's flag doesn't accept.
    """
    file = path / RECORD if path.is_dir() else path
    record = read_json(file)
    plain = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(plain, dict):
        raise UserError(f"{file}: not the record of a run. Use the {RECORD} that train.py wrote to its --output_path.")
    plain = earlier_settings(str(plain.get("weights"))) | plain
    options = options_of(TrainSettings)
    repeated = {name: value for name, value in plain.items() if name not in options or options[name].repeated}
    values = values_read(TrainSettings, repeated, file)
    derived = dependent_values(with_values(TrainSettings(), values), Given(frozenset(), frozenset()))
    kept = {name: value for name, value in values.items() if name not in derived or value != derived[name]}
    return RECIPES[values["recipe"]] | kept, frozenset(kept.keys() & derived.keys())


MOST_USED = (
    *("recipe", "coco_path", "depth", "weights", "min_side", "max_side", "batch_size"),
    *("epochs", "learning_rate", "seed", "output_path", "resume", "log_dir"),
)


def default_statistics(weights: str) -> str:
    """Returns the default of --norm_statistics for a network that starts from `weights`."""
    return "learned" if weights == "none" else Network.norm_statistics


def earlier_settings(weights: str) -> dict[str, Any]:
    """Returns flat settings for the flags that didn't exist yet when an earlier version trained a run from `weights`.

    These are the defaults, except for --exif: earlier versions rotated an image only if its annotated size required it.
    """
    return flat(TrainSettings()) | {"norm_statistics": default_statistics(weights), "exif": RAW}


def dependent_values(settings: TrainSettings, given: Given) -> dict[str, Any]:
    """Returns the defaults that depend on other flags."""
    optimisation, weights = settings.optimisation, settings.network.weights
    values: dict[str, Any] = {}
    for pair in INSTEAD:
        for name, other in (pair, pair[::-1]):
            if other in given.names:
                values[name] = getattr(Optimisation, name)
    if weights == "none":
        values["norm_statistics"] = default_statistics(weights)
    if weights == "coco":
        values |= {"head_norm": DETECTOR.head_norm, "iou_branch": False}
    if settings.recipe == STRONG:
        share = RESNET_SHARE
        if optimisation.optimizer != "sgd":  # rates for SGD are on another scale
            share = min(share, RESNET_RATE / optimisation.learning_rate)
        values["backbone_rate"] = (share,)
        has_one_size = settings.speed.cache == "ram" and not settings.data.tiling.tile  # cached images have one size
        if optimisation.epochs >= SIDES_FROM_EPOCHS and not has_one_size:
            sides = {max(LEAST_SIDE, round(settings.data.min_side * fraction)) for fraction in SIDE_SHARES}
            values["train_sides"] = tuple(sorted(sides))
    return values


# Settings that don't affect the numbers are not listed, except those that tell runs apart.
UNLISTED = MAY_CHANGE - {"recipe", "output_path", "batch_size", "epochs"}


def as_flags(architecture: Architecture) -> list[str]:
    """Returns the architecture as train.py's flags, always in the same order, so that architectures can be compared."""
    flags = {name: _flag(name, value) for name, value in network_values(architecture).items()}
    side, ratios, scales = architecture.anchors
    if scales != Anchors(side, ratios, len(scales)).shapes.scales:
        flags["anchor_octaves"] += f" (of sizes {' '.join(map(str, scales))})"
    return list(flags.values())


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    values = value if isinstance(value, tuple) else (value,)
    return f"--{name} {' '.join(f'{each:g}' if isinstance(each, float) else str(each) for each in values)}"


def network_values(architecture: Architecture) -> dict[str, Any]:
    """Returns the values of the flags that describe the architecture."""
    side, ratios, scales = architecture.anchors
    return {
        "depth": architecture.depth,
        "channels": architecture.channels,
        "head_norm": architecture.head_norm,
        "anchor_scale": float(side),
        "anchor_ratios": tuple(map(float, ratios)),
        "anchor_octaves": len(scales),
        "iou_branch": architecture.iou_branch,
    }


def differences(own: Architecture, asked: Architecture) -> list[tuple[str, str]]:
    """Returns the differences between a file's `own` architecture and the architecture `asked` for.

    Each difference is a pair of the file's flag and the value asked for: ("--depth 18", "34"), ("--no_iou_branch",
    "--iou_branch").
    """
    pairs = zip(as_flags(own), as_flags(asked), strict=True)
    return [(flag, other.removeprefix(flag.split(" ")[0] + " ")) for flag, other in pairs if flag != other]


def with_parts_without_flags(asked: Architecture, own: Architecture) -> Architecture:
    """Returns the architecture `asked` for, but with a file's `own` values for the parts that no flag describes."""
    return asked._replace(level_code=own.level_code, p6_from_p5=own.p6_from_p5)


def require_detector(network: Network, source: str, own: Architecture = DETECTOR) -> None:
    """Raises UserError unless `network` can load the detector in `source`, whose architecture is `own`."""
    if wrong := differences(own._replace(anchors=network.anchors.shapes), network.architecture):
        flag, asked = wrong[0]
        fix = " ".join(flag for flag, _ in wrong)
        raise UserError(f"{source} is a detector with {flag}, not {asked}. Use {fix}.")


def settings_line(settings: dict[str, Any]) -> str:
    """Returns the log line with a run's flags, which vis.py --logs reads."""
    listed = {name: value for name, value in settings.items() if name not in UNLISTED}
    return f"Settings: {json.dumps(listed, default=str)}"


def anchor_words(shapes: AnchorShapes) -> list[str]:
    """Returns the flags, word by word, for the parts of `shapes` that differ from the defaults."""
    usual = network_values(Architecture())
    values = network_values(Architecture(anchors=shapes))
    return [word for name, value in values.items() if value != usual[name] for word in _flag(name, value).split()]

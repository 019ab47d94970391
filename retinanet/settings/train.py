"""What train.py can be told, and the recipes that set many flags at once."""

import json
from dataclasses import dataclass
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
from retinanet.settings.options import (
    Given,
    number_above,
    number_from,
    option,
    options_of,
    parsed,
    part,
    whole_number,
    with_values,
)
from retinanet.settings.shared import (
    FROM_ORIGINAL,
    LEAST_SIDE,
    MAX_SIDE,
    MIN_SIDE,
    Anchors,
    Augmentation,
    Detection,
    Machine,
    check_sides,
    coco_path_option,
    eval_backend_option,
    log_dir_option,
    max_side_option,
    min_side_option,
)

PUBLISHED, STRONG = "published", "strong"
# Shares of the learning rate, and with Adam and AdamW a limit: at a higher rate the ResNet would forget what it knows.
RESNET_SHARE, RESNET_RATE = 0.15, 3e-5
SIDE_SHARES = (0.8, 0.9, 1.0, 1.1, 1.2)  # of --min_side, for multi-scale training
SIDES_FROM_EPOCHS = 12  # in shorter runs an object is seen too seldom at each size
# A recipe's values are defaults, so each flag can still be given; dependent_values adds those that depend on others.
RECIPES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    STRONG: {
        "schedule": "cosine",
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
INSTEAD = {
    "warmup_share": "warmup_steps",
    "ema_share": "ema_decay",
}  # two flags for the same: either replaces the other

DEPTHS_OF_V2 = (50, 101, 152)  # that torchvision has its newer ImageNet weights for
# torchvision's detector that learned COCO, retinanet_resnet50_fpn_v2.
DETECTOR = Architecture(50, 256, "group")
NORM_STATISTICS = ("auto", "frozen", "learned")
OPTIMIZERS = ("adam", "adamw", "sgd")
STEP, COSINE = SCHEDULES = ("step", "cosine")
TENSORBOARD, MLFLOW, WANDB = TRACKERS = ("tensorboard", "mlflow", "wandb")
PUBLISHED_SEED = 3407  # of the published runs
RANDOM = "random"  # the seed that rank 0 draws for all ranks
AUTO_BATCH = 0  # a --batch_size that is found at the start
LEAST_WINDOW = 2  # steps of an average


def _batch_size(text: str) -> int:
    return AUTO_BATCH if text == "auto" else whole_number(1)(text)


def _seed(text: str) -> int | str:
    """A whole number, or RANDOM, which is drawn later: here each rank would draw another one."""
    return text if text == RANDOM else whole_number(0)(text)


@dataclass(frozen=True)
class Data:
    coco_path: Path = coco_path_option()
    train_set: str = option("train", "name of the set to train on")
    val_set: str = option("val", "name of the set to evaluate on")
    min_side: int = min_side_option(MIN_SIDE)
    max_side: int = max_side_option(MAX_SIDE)
    augmentation: Augmentation = part(Augmentation)
    batch_size: int = option(
        2,
        "images per batch; auto: as many as a GPU has memory for, tried at the start",
        _batch_size,
        may_change=True,
    )
    repeat_threshold: float = option(
        0.0,
        "draw images of rare classes more often: a class in a share f of the images sqrt(threshold / f) times, where "
        "that is above 1; 0: each once",
        number_from(0, 1),
    )
    drop_last: bool = option(False, "leave out the images that don't fill a batch", bool)
    bad_images: str = option(
        "stop",
        "at an image that can't be read: stop, or train without it (up to 1 in 100, or 5)",
        ("stop", "skip"),
        may_change=True,
    )

    def check(self) -> None:
        check_sides(self.min_side, self.max_side)
        self.augmentation.check()


@dataclass(frozen=True)
class Network:
    """The network, and the weights that it starts from."""

    depth: int = option(Architecture().depth, "layers of the ResNet", DEPTHS)
    channels: int = option(CHANNELS, "width of the pyramid and the heads", whole_number(1))
    weights: str = option(
        "imagenet",
        "initial weights of the ResNet: imagenet, imagenet_v2 (torchvision's old and new ones, downloaded once), none, "
        "or a FILE with a state dict, which may hold only a part; of the whole detector: coco (torchvision's "
        "retinanet_resnet50_fpn_v2, downloaded once), or a FILE with its state dict, or a checkpoint of train.py",
    )
    freeze_stages: int = option(
        0,
        "stages of the ResNet that are not trained: 1 the stem, 2 also layer1, ... 5 all",
        whole_number(0, len(STAGES)),
    )
    head_norm: str = option("none", "normalisation in the heads (default: none; group with --weights coco)", HEAD_NORMS)
    norm_statistics: str = option(
        "frozen",
        "statistics of batch norm: frozen as loaded; auto, those that the weights lack are measured on training images "
        "first; learned (default: frozen; learned with --weights none)",
        NORM_STATISTICS,
    )
    prior: float = option(
        PRIOR, "initial score of every anchor and class (sets the classification bias)", number_above(0, 0.999)
    )
    iou_branch: bool = option(
        False,
        "also predict each box's IoU with its object, which a detection's score then counts in",
        bool,
        off="where a recipe would have one",
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
                f"--head_norm group needs --channels that are a multiple of {NORM_GROUPS}, not {self.channels}"
            )
        if self.weights == "imagenet_v2" and self.depth not in DEPTHS_OF_V2:
            depths = ", ".join(map(str, DEPTHS_OF_V2))
            raise UserError(
                f"--weights imagenet_v2 exists for --depth {depths}. Give one of them, or --weights imagenet"
            )
        if self.weights == "none" and self.norm_statistics != "learned":
            raise UserError(
                f"--weights none has no statistics that --norm_statistics {self.norm_statistics} could keep. Drop it"
            )
        if self.weights == "none" and self.freeze_stages:
            raise UserError("--freeze_stages would keep the random weights of --weights none. Drop one of the two")


@dataclass(frozen=True)
class Loss(LossSettings):
    """LossSettings as flags."""

    alpha: float = option(LossSettings.alpha, "focal loss: weight of the objects", number_from(0, 1))
    gamma: float = option(LossSettings.gamma, "focal loss: how far it favours hard anchors", number_from(0))
    beta: float = option(LossSettings.beta, "smooth L1: error from which it is linear", number_above(0))
    foreground_iou: float = option(
        LossSettings.foreground_iou, "IoU with an object from which an anchor is foreground", number_above(0, 1)
    )
    background_iou: float = option(
        LossSettings.background_iou, "IoU with every object below which an anchor is background", number_from(0, 1)
    )
    matcher: str = option(
        LossSettings.matcher,
        "how anchors are matched to objects: iou, by --foreground_iou; low_quality, also the anchors that overlap an "
        "object most, however little; atss, by the statistics of the nearest anchors' IoU (ATSS)",
        MATCHERS,
    )
    class_loss: str = option(
        LossSettings.class_loss,
        "focal: the score of an object is to be 1; quality: its box's IoU (quality focal loss)",
        CLASS_LOSSES,
    )
    box_loss: str = option(LossSettings.box_loss, "smooth L1 on the deltas, or GIoU on the boxes", BOX_LOSSES)
    ignore_crowds: bool = option(
        LossSettings.ignore_crowds,
        "ignore anchors in crowd regions instead of taking them for background",
        bool,
        off="where a recipe would ignore them",
    )

    def check(self, given: Given) -> None:
        if self.background_iou > self.foreground_iou:
            raise UserError(f"--background_iou {self.background_iou} is above --foreground_iou {self.foreground_iou}")
        for name in ("foreground_iou", "background_iou"):
            if self.matcher == "atss" and name in given.changed:
                raise UserError(f"--matcher atss finds the IoU of each object itself. Drop --{name}")
        if self.class_loss == "quality":
            given.refuse(("alpha",), "is for --class_loss focal. Drop it, or give that")
        if self.box_loss == "giou":
            given.refuse(("beta",), "is for --box_loss smooth_l1. Drop it, or give that")


@dataclass(frozen=True)
class Optimisation:
    epochs: int = option(72, "passes over the training set", whole_number(1), may_change=True)
    optimizer: str = option("adam", "sgd has momentum 0.9", OPTIMIZERS)
    learning_rate: float = option(1e-4, "its highest value; --find_lr suggests one", number_above(0))
    backbone_rate: tuple[float, ...] = option(
        (1.0,),
        "the ResNet's share of the learning rate, but for stages that --weights leaves random; or one share for each "
        f"of its stages: {', '.join(STAGES)}",
        number_above(0),
        nargs="+",
    )
    weight_decay: float = option(0.0, "of all weights but biases and the scales of normalisations", number_from(0))
    schedule: str = option(
        STEP,
        "learning rate: step, divided by 10 at --milestones; cosine, down to 0 at the end of the last epoch",
        SCHEDULES,
    )
    milestones: tuple[int, ...] = option(
        (48, 64), "epochs at which the learning rate is divided by 10", whole_number(0), nargs="*"
    )
    warmup_steps: int = option(0, "steps in which the learning rate rises from near 0", whole_number(0))
    warmup_share: float = option(0.0, "the same as a share of the run's steps, such as 0.05", number_from(0, 0.9))
    accumulate: int = option(1, "gradient accumulation: batches per optimiser step", whole_number(1))
    ema_decay: float = option(
        0.0,
        "also keep an exponential moving average of the weights with this decay; 0: none",
        number_from(0, 0.999999),
    )
    ema_share: float = option(
        0.0,
        "the same, with a decay that averages over about this share of the run's steps, such as 0.05",
        number_from(0, 0.5),
    )
    clip_norm: float = option(0.1, "clip the gradient to this norm", number_above(0))
    find_lr: bool = option(
        False,
        "instead of a training, try learning rates from 1e-7 to 1, suggest one and draw the losses",
        bool,
        may_change=True,
    )
    steps: int = option(300, "with --find_lr: number of learning rates to try", whole_number(50), may_change=True)
    seed: int | str = option(
        PUBLISHED_SEED, "a whole number, or random: drawn and printed; with --resume the saved run's", _seed
    )
    seeds: tuple[int, ...] | None = option(
        None,
        "instead of --seed: train once with each, into {output_path}/seed{N}, and print mean and spread",
        whole_number(0),
        nargs="+",
        may_change=True,
    )

    @property
    def run_seed(self) -> int:
        """The seed, once it is settled."""
        assert isinstance(self.seed, int)
        return self.seed

    @property
    def depends_on_epochs(self) -> bool:
        """Whether a step's numbers depend on the length of the whole run."""
        return self.schedule != STEP or bool(self.warmup_share) or bool(self.ema_share)

    def num_warmup_steps(self, num_steps: int) -> int:
        """Warm-up steps in a run of `num_steps`."""
        return self.warmup_steps or round(self.warmup_share * num_steps)

    def average_decay(self, num_steps: int) -> float:
        """The decay of the weights' average in a run of `num_steps`; 0 means none."""
        if not self.ema_share:
            return self.ema_decay
        return 1 - 1 / max(LEAST_WINDOW, self.ema_share * num_steps)

    def check(self, given: Given, freeze_stages: int) -> None:
        if self.schedule != STEP and "milestones" in given.changed:
            raise UserError("--milestones are for --schedule step. Drop them, or give it")
        for name, other in INSTEAD.items():
            if {name, other} <= given.changed:
                raise UserError(f"--{name} and --{other} say the same in two ways. Give one")
        if len(self.backbone_rate) not in (1, len(STAGES)):
            raise UserError(f"--backbone_rate has {len(self.backbone_rate)} shares. Give one, or {len(STAGES)}")
        if freeze_stages == len(STAGES) and "backbone_rate" in given.changed:
            raise UserError(
                f"--freeze_stages {len(STAGES)} leaves --backbone_rate nothing to train. Drop one of the two"
            )
        if not self.find_lr:
            given.refuse(("steps",), "is for --find_lr; a training takes --epochs")
        if self.seeds:
            given.refuse(("seed",), "is for one run. Drop it, or --seeds")
            if len(set(self.seeds)) < len(self.seeds):
                raise UserError("--seeds names a seed twice. Give each once")


@dataclass(frozen=True)
class Speed:
    compile: str = option(
        "auto",
        "torch.compile the step, for a few padded shapes; auto: on a GPU, if the run is long enough to repay it",
        ("auto", "on", "off"),
        may_change=True,
    )
    cache: str = option(
        "none",
        "ram: keep decoded and resized training images in memory, up to half of what is free; the processes of a "
        "machine share it",
        ("none", "ram"),
        may_change=True,
    )

    def check(self, augmentation: Augmentation) -> None:
        resizing = (
            ("train_sides", augmentation.train_sides or ()),
            ("augment", FROM_ORIGINAL & {*(augmentation.augment or ())}),
        )
        for flag, values in resizing if self.cache == "ram" else ():
            if values:
                raise UserError(
                    f"--cache ram keeps images of one size, which doesn't suit --{flag} "
                    f"{' '.join(map(str, sorted(values)))}. Drop one of the two"
                )


@dataclass(frozen=True)
class Output:
    output_path: Path = option(Path("output"), "folder of the checkpoints and run.json", Path, may_change=True)
    resume: bool = option(
        False,
        "resume the run in --output_path, to the same numbers; a folder without one gets a new run",
        bool,
        may_change=True,
    )
    save_every: int = option(
        0, "steps between saves of last.pt within an epoch; 0: none", whole_number(0), may_change=True
    )
    eval_every: int = option(10, "epochs between evaluations", whole_number(1), may_change=True)
    patience: int = option(
        0,
        "end the run after so many evaluations in a row without a higher AP; 0: never",
        whole_number(0),
        may_change=True,
    )
    log_every: int = option(100, "steps between log lines", whole_number(1), may_change=True)
    log_dir: Path | None = log_dir_option()
    track: tuple[str, ...] | None = option(
        None,
        "also send the log's numbers to these trackers, each a package of its own",
        TRACKERS,
        nargs="+",
        may_change=True,
    )

    def check(self) -> None:
        kinds = self.track or ()
        if len(set(kinds)) < len(kinds):
            raise UserError(f"--track {' '.join(kinds)} names a tracker twice. Give each once")


@dataclass(frozen=True)
class Safety:
    max_skipped: int = option(
        10,
        "a step whose loss or gradient is not finite is skipped; the run ends after this many in a row",
        whole_number(1),
        may_change=True,
    )
    timeout: float = option(
        60.0,
        "seconds to wait for a loader process or another rank before the run ends",
        number_above(0, 10**6),
        may_change=True,
    )
    deterministic: bool = option(False, "make a GPU repeat its numbers to the last digit; slower", bool)
    verify_resume: int | None = option(
        None,
        "instead of a training, compare 2N steps bit for bit with N steps, a checkpoint and N more",
        whole_number(1),
        metavar="N",
        may_change=True,
    )


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a run; the defaults are the published runs'. run.json, logs and checkpoints hold them flat."""

    recipe: str = option(
        PUBLISHED,
        "defaults of the other flags: published, those of the published runs; strong, for more accuracy on small sets: "
        "+0.031 AP with three seeds (benchmarks/accuracy.md)",
        tuple(RECIPES),
        may_change=True,
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

    @property
    def instead_of_training(self) -> list[str]:
        """The flags that ask for something else than a training."""
        asked = {"--verify_resume": self.safety.verify_resume, "--find_lr": self.optimisation.find_lr}
        return [flag for flag, value in asked.items() if value]

    def check(self, given: Given) -> None:
        """UserError where flags contradict each other."""
        self.network.check()
        self.data.check()
        self.loss.check(given)
        self.optimisation.check(given, self.network.freeze_stages)
        self.speed.check(self.data.augmentation)
        self.output.check()
        instead = self.instead_of_training
        if len(instead) > 1:
            raise UserError(f"{instead[0]} and {instead[1]} each replace the training. Give one of them")
        for name in ("resume", "seeds", "log_dir", "track"):
            if instead and name in given.changed:
                raise UserError(f"{instead[0]} keeps nothing of its training. Drop --{name}")


# Flags that a resumed run may have otherwise: they change no number, or their effect is compared as a fact.
MAY_CHANGE = frozenset(name for name, how in options_of(TrainSettings).items() if how.may_change)


def train_settings(argv: list[str] | None = None) -> TrainSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = "Train a RetinaNet on a COCO-format data set."
    settings, given = parsed(TrainSettings, description, argv, most_used=MOST_USED)
    defaults = RECIPES[settings.recipe]
    settings = with_values(settings, {name: defaults[name] for name in defaults.keys() - given.names})
    defaults = dependent_values(settings, given)
    settings = with_values(settings, {name: defaults[name] for name in defaults.keys() - given.names})
    settings.check(given)
    return settings


MOST_USED = (
    *("recipe", "coco_path", "depth", "weights", "min_side", "max_side", "batch_size"),
    *("epochs", "learning_rate", "seed", "output_path", "resume", "log_dir"),
)


def default_statistics(weights: str, otherwise: str = Network.norm_statistics) -> str:
    """The default of --norm_statistics for a network that starts from `weights`."""
    return "learned" if weights == "none" else otherwise


def dependent_values(settings: TrainSettings, given: Given) -> dict[str, Any]:
    """The defaults that depend on other flags."""
    optimisation, weights = settings.optimisation, settings.network.weights
    values: dict[str, Any] = {name: 0.0 for name, other in INSTEAD.items() if other in given.names}
    values["norm_statistics"] = default_statistics(weights, settings.network.norm_statistics)
    if weights == "coco":
        values |= {"head_norm": DETECTOR.head_norm, "iou_branch": False}
    if settings.recipe == STRONG:
        share = RESNET_SHARE
        if optimisation.optimizer != "sgd":  # whose rates are others
            share = min(share, RESNET_RATE / optimisation.learning_rate)
        values["backbone_rate"] = (share,)
        if optimisation.epochs >= SIDES_FROM_EPOCHS and settings.speed.cache == "none":  # cached images have one size
            sides = {max(LEAST_SIDE, round(settings.data.min_side * of_side)) for of_side in SIDE_SHARES}
            values["train_sides"] = tuple(sorted(sides))
    return values


# Of the settings without effect on the numbers only those are listed that tell runs apart.
UNLISTED = MAY_CHANGE - {"recipe", "output_path", "batch_size", "epochs"}


def as_flags(architecture: Architecture) -> list[str]:
    """The architecture as train.py's flags, one for each part, so that two can be compared and named."""
    side, ratios, scales = architecture.anchors
    regular = Anchors(side, ratios, len(scales)).shapes.scales
    sizes = "" if scales == regular else f" (of sizes {' '.join(map(str, scales))})"
    return [
        f"--depth {architecture.depth}",
        f"--channels {architecture.channels}",
        f"--head_norm {architecture.head_norm}",
        f"--anchor_scale {side:g}",
        f"--anchor_ratios {' '.join(f'{ratio:g}' for ratio in ratios)}",
        f"--anchor_octaves {len(scales)}{sizes}",
        "--iou_branch" if architecture.iou_branch else "--no_iou_branch",
    ]


def differences(own: Architecture, asked: Architecture) -> list[tuple[str, str]]:
    """The flags in which a file's `own` architecture differs from the one that is `asked` for.

    Each is the file's flag and what is asked for instead: ("--depth 18", "34"), ("--no_iou_branch", "--iou_branch").
    """
    pairs = zip(as_flags(own), as_flags(asked), strict=True)
    return [(flag, other.removeprefix(flag.split(" ")[0] + " ")) for flag, other in pairs if flag != other]


def require_detector(network: Network, source: str) -> None:
    """Raises UserError where the `network` can't take the weights of torchvision's detector in `source`."""
    if wrong := differences(DETECTOR._replace(anchors=network.anchors.shapes), network.architecture):
        own, asked = wrong[0]
        fix = " ".join(flag for flag, _ in wrong)
        raise UserError(f"{source} is a detector of {own}, not {asked}. Give {fix}.")


def settings_line(settings: dict[str, Any]) -> str:
    """The flags of a training, for vis.py --logs."""
    listed = {name: value for name, value in settings.items() if name not in UNLISTED}
    return f"Settings: {json.dumps(listed, default=str)}"


def anchor_words(shapes: AnchorShapes) -> list[str]:
    """The flags of anchors that are not the default ones."""
    scale = ["--anchor_scale", f"{shapes.side:g}"] if shapes.side != AnchorShapes().side else []
    ratios = ["--anchor_ratios", *(f"{ratio:g}" for ratio in shapes.ratios)]
    octaves = ["--anchor_octaves", str(len(shapes.scales))]
    return [
        *scale,
        *(ratios if shapes.ratios != AnchorShapes().ratios else []),
        *(octaves if shapes.scales != AnchorShapes().scales else []),
    ]

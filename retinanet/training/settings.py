"""Everything that a training depends on: a field for each flag of train.py. Needs no PyTorch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from retinanet.checkpoints.settings import StartSettings
from retinanet.data.settings import MAX_PIXELS, MAX_SIDE, MIN_SIDE, AugmentSettings
from retinanet.detector.settings import DetectionSettings, LossSettings

Part = TypeVar("Part", StartSettings, LossSettings, DetectionSettings)
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("step", "cosine")
PUBLISHED, PUBLISHED_SEED = "published", 3407  # the recipe and the seed of the published runs
LEAST_WINDOW = 2  # steps of an average
RANDOM = "random"  # the seed that rank 0 draws for all ranks


AUTO_BATCH = 0  # a --batch_size that is found at the start


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a run; the defaults are the published runs'.

    run.json, `Settings:` lines and checkpoints hold them as `plain` gives them, so names and order stay.
    """

    recipe: str = PUBLISHED
    coco_path: Path = Path("data")
    train_set: str = "train"
    val_set: str = "val"
    min_side: int = MIN_SIDE
    max_side: int = MAX_SIDE
    train_sides: tuple[int, ...] | None = None
    flip: float = AugmentSettings.flip
    augment: tuple[str, ...] | None = None
    repeat_threshold: float = AugmentSettings.repeat_threshold
    batch_size: int = 2
    drop_last: bool = False
    bad_images: str = "stop"
    depth: int = StartSettings.depth
    channels: int = StartSettings.channels
    weights: str = StartSettings.weights
    freeze_stages: int = StartSettings.freeze_stages
    head_norm: str = StartSettings.head_norm
    norm_statistics: str = StartSettings.norm_statistics
    prior: float = StartSettings.prior
    iou_branch: bool = StartSettings.iou_branch
    anchor_scale: float = StartSettings.anchor_scale
    anchor_ratios: tuple[float, ...] = StartSettings.anchor_ratios
    anchor_octaves: int = StartSettings.anchor_octaves
    alpha: float = LossSettings.alpha
    gamma: float = LossSettings.gamma
    beta: float = LossSettings.beta
    foreground_iou: float = LossSettings.foreground_iou
    background_iou: float = LossSettings.background_iou
    matcher: str = LossSettings.matcher
    class_loss: str = LossSettings.class_loss
    box_loss: str = LossSettings.box_loss
    ignore_crowds: bool = LossSettings.ignore_crowds
    epochs: int = 72
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    backbone_rate: tuple[float, ...] = (1.0,)
    weight_decay: float = 0.0
    schedule: str = "step"
    milestones: tuple[int, ...] = (48, 64)
    warmup_steps: int = 0
    warmup_share: float = 0.0
    accumulate: int = 1
    ema_decay: float = 0.0
    ema_share: float = 0.0
    clip_norm: float = 0.1
    find_lr: bool = False
    steps: int = 300
    seed: int | str = PUBLISHED_SEED
    seeds: tuple[int, ...] | None = None
    compile: str = "auto"
    cache: str = "none"
    output_path: Path = Path("output")
    resume: bool = False
    save_every: int = 0
    eval_every: int = 10
    patience: int = 0
    log_every: int = 100
    log_dir: Path | None = None
    track: tuple[str, ...] | None = None
    threshold: float = DetectionSettings.threshold
    num_candidates: int = DetectionSettings.num_candidates
    nms_iou: float = DetectionSettings.nms_iou
    max_detections: int = DetectionSettings.max_detections
    eval_backend: str = "auto"
    max_skipped: int = 10
    timeout: float = 60.0
    deterministic: bool = False
    verify_resume: int | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None  # None: as many as suit the device
    max_pixels: int = MAX_PIXELS

    @property
    def start(self) -> StartSettings:
        return self._part(StartSettings)

    @property
    def augmentation(self) -> AugmentSettings:
        return AugmentSettings(self.flip, self.augment or (), self.train_sides or (), self.repeat_threshold)

    @property
    def loss(self) -> LossSettings:
        return self._part(LossSettings)

    @property
    def detection(self) -> DetectionSettings:
        return self._part(DetectionSettings)

    @property
    def run_seed(self) -> int:
        """The seed, once it is settled."""
        assert isinstance(self.seed, int)
        return self.seed

    def num_warmup_steps(self, num_steps: int) -> int:
        """Of a run of `num_steps`."""
        return self.warmup_steps or round(self.warmup_share * num_steps)

    def average_decay(self, num_steps: int) -> float:
        """The decay of the weights' average in a run of `num_steps`; 0 means none."""
        if not self.ema_share:
            return self.ema_decay
        return 1 - 1 / max(LEAST_WINDOW, self.ema_share * num_steps)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON and checkpoints hold them: a tuple becomes a list, a path its name."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def _part(self, kind: type[Part]) -> Part:
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value

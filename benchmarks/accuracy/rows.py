"""Defines the rows of accuracy.md: the flags that each row adds to the defaults, and the commands that produce it.

In the commands, $VOC5 stands for the dataset folder, $R18 for the weights file, and FOLDER for the folder of the runs.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from retinanet.settings.train import Data, Optimisation

RECOMMENDED = (
    *("--schedule", "cosine", "--warmup_steps", "200", "--ema_decay", "0.999", "--backbone_rate", "0.5"),
    *("--box_loss", "giou", "--ignore_crowds"),
)
HALF_RATE = ("--backbone_rate", *("0.5",) * 5)  # an earlier value of the strong recipe
TRAIN_SIDES, TEST_SIDES = (480, 544, 608, 672), (480, 608, 736)  # for a shorter side of 608
BASELINE, PEER = "baseline", "peer"


class Setting(NamedTuple):
    """The settings that all rows of one table share."""

    device: str  # cpu or cuda
    depth: int
    min_side: int
    max_side: int
    batch_size: int
    epochs: int
    milestones: tuple[int, ...]
    val_set: str  # the fingerprint of its annotation file
    channels: int = 256  # of the pyramid and the heads

    def title(self) -> str:
        return (
            f"{self.device}: ResNet-{self.depth}, {self.channels} channels, {self.min_side}/{self.max_side} px, "
            f"batches of {self.batch_size}, {self.epochs} epochs"
        )


class Row(NamedTuple):
    name: str
    flags: tuple[str, ...] = ()  # of train.py
    test_flags: tuple[str, ...] = ()  # of test.py, on the baseline's checkpoint
    has_seeds: bool = False  # runs with each of the seeds, not only with the first


class Run(NamedTuple):
    row: Row
    seed: int
    folder: str
    commands: list[list[str]]  # one after the other
    results_path: str


def milestones_of(epochs: int) -> tuple[int, ...]:
    """Returns milestones at the same fractions of the run as in train.py's defaults."""
    return (epochs * 2 // 3, epochs * 8 // 9)


def rows_of(setting: Setting) -> list[Row]:
    """Returns the rows with several seeds, then the one-seed rows, each of which tries flags of train.py or test.py."""
    train_sides, test_sides = (_scaled(sides, setting.min_side) for sides in (TRAIN_SIDES, TEST_SIDES))
    high_rate = ("--learning_rate", "1e-3")
    recommended = (
        *RECOMMENDED,
        "--learning_rate",
        f"{Optimisation.learning_rate * setting.batch_size / Data.batch_size:g}",
    )
    return [
        Row(BASELINE, has_seeds=True),
        Row("strong", ("--recipe", "strong"), has_seeds=True),
        Row(PEER, has_seeds=True),
        Row("bfloat16", ("--precision", "bfloat16"), has_seeds=True),
        Row("recommended", recommended),
        Row("strong_one_side", ("--recipe", "strong", "--train_sides", str(setting.min_side))),
        Row("strong_high_rate", ("--recipe", "strong", *high_rate)),
        Row("strong_low_rate", ("--recipe", "strong", "--learning_rate", "1e-4")),
        Row("strong_half_rate", ("--recipe", "strong", *HALF_RATE)),
        Row("strong_without_iou_branch", ("--recipe", "strong", "--no_iou_branch", *HALF_RATE)),
        Row("strong_small_anchors", ("--recipe", "strong", "--no_iou_branch", "--anchor_scale", "2", *HALF_RATE)),
        Row("recommended_augmented", (*recommended, "--train_sides", *train_sides, "--augment", "photometric")),
        Row("cosine", ("--schedule", "cosine", "--warmup_steps", "500")),
        Row("accumulate", ("--accumulate", "4")),
        Row("ema", ("--ema_decay", "0.999")),
        Row("adamw", ("--optimizer", "adamw", "--weight_decay", "0.05")),
        Row("train_sides", ("--train_sides", *train_sides)),
        *(Row(name, ("--augment", name)) for name in ("photometric", "crop", "zoom_out", "jitter")),
        Row("giou", ("--box_loss", "giou")),
        *(Row(name, ("--matcher", name)) for name in ("low_quality", "atss")),
        Row("quality", ("--class_loss", "quality")),
        Row("repeat_threshold", ("--repeat_threshold", "0.2")),
        Row("patience", ("--patience", "3", "--eval_every", "2")),
        Row("ignore_crowds", ("--ignore_crowds",)),
        Row("group_norm", ("--head_norm", "group")),
        Row("freeze_stages", ("--freeze_stages", "2")),
        Row("backbone_rate", ("--backbone_rate", "0.1")),
        Row("high_rate", high_rate),
        Row("recommended_high_rate", (*RECOMMENDED, *high_rate)),
        Row("flip_test", test_flags=("--flip_test",)),
        Row("test_sides", test_flags=("--flip_test", "--test_sides", *test_sides)),
    ]


def _scaled(sides: Iterable[int], min_side: int) -> list[str]:
    """Scales the sides in proportion to `min_side`, and rounds them to multiples of 8."""
    return [str(round(side * min_side / TRAIN_SIDES[2] / 8) * 8) for side in sides]


def runs_of(setting: Setting, rows: Iterable[Row], seeds: Iterable[int]) -> list[Run]:
    """Returns the runs, most informative first: the rows with several seeds, seed by seed, then the others."""
    rows, (first, *more) = list(rows), seeds
    order = [(row, first) for row in rows if row.has_seeds]
    order += [(row, seed) for seed in more for row in rows if row.has_seeds]
    order += [(row, first) for row in rows if not row.has_seeds]
    return [_run_of(setting, row, seed) for row, seed in order]


def _run_of(setting: Setting, row: Row, seed: int) -> Run:
    if row.name == PEER:
        command = _training(["-m", "benchmarks.accuracy.peer"], setting, ())
        folder = _folder(row, command, seed)
        results_path = f"{folder}/val.json"
        return Run(row, seed, folder, [[*command, "--seed", str(seed), "--output_path", results_path]], results_path)
    command = _training(["train.py"], setting, row.flags)
    if "--eval_every" not in row.flags:
        command += ["--eval_every", str(setting.epochs)]
    trained = _folder(Row(BASELINE) if row.test_flags else row, command, seed)
    folder = _folder(row, [*command, *row.test_flags], seed)
    results_path = f"{trained}/{row.name}.json" if row.test_flags else f"{folder}/val.json"
    detection = ["python", "test.py", "--coco_path", "$VOC5", "--set_name", "val", "--device", setting.device]
    detection += ["--checkpoint_path", f"{trained}/model_final.pt", "--results_path", results_path]
    detection += ["--num_draws", "0", *row.test_flags]
    training = [*command, "--seed", str(seed), "--output_path", trained, "--resume"]
    return Run(row, seed, folder, [training, detection], results_path)


def _training(program: list[str], setting: Setting, flags: tuple[str, ...]) -> list[str]:
    words = ["python", *program, "--coco_path", "$VOC5", "--weights", "$R18", "--device", setting.device]
    for name in ("depth", "min_side", "max_side", "batch_size", "epochs"):
        words += [f"--{name}", str(getattr(setting, name))]
    if setting.channels != 256:  # the commands of earlier runs lack the flag
        words += ["--channels", str(setting.channels)]
    if "--schedule" not in flags and "--recipe" not in flags:  # only the step schedule uses milestones
        words += ["--milestones", *map(str, setting.milestones)]
    return [*words, *flags]


def _folder(row: Row, command: list[str], seed: int) -> str:
    """Returns a run's folder, whose name depends on the command, so that runs with other settings don't share it."""
    return f"FOLDER/{row.name}_{zlib.crc32(' '.join(command).encode()):08x}/seed{seed}"


def filled(words: Iterable[str], places: Mapping[str, str]) -> list[str]:
    """Returns the words of a command, with names such as $VOC5 replaced by the paths in `places`."""
    found = []
    for word in words:
        for name, place in places.items():
            if word == name or word.startswith(f"{name}/"):
                word = place + word[len(name) :]
        found.append(word)
    return found

"""The command line of train.py, as settings."""

import argparse
from dataclasses import replace

from retinanet.cli.augment_flags import add_augment_flags, check_augment_flags
from retinanet.cli.flags import given, number_from, parsed, parser_of, whole_number
from retinanet.cli.loss_flags import add_loss_flags, check_loss_flags
from retinanet.cli.network_flags import add_network_flags, check_network_flags, settled_norms
from retinanet.cli.optimisation_flags import add_optimisation_flags, check_optimisation_flags
from retinanet.cli.run_flags import add_output_flags, add_safety_flags, add_speed_flags, check_run_flags
from retinanet.cli.shared_flags import (
    add_coco_path_flag,
    add_detection_flags,
    add_eval_backend_flag,
    add_machine_flags,
)
from retinanet.training.recipes import INSTEAD, RECIPES, recipe_values
from retinanet.training.settings import AUTO_BATCH, TrainSettings

MOST_USED = (
    *("recipe", "coco_path", "depth", "weights", "min_side", "max_side", "batch_size"),
    *("epochs", "learning_rate", "seed", "output_path", "resume", "log_dir"),
)


def train_settings(argv: list[str] | None = None) -> TrainSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = settled_norms(with_recipe(parsed(build_parser(), TrainSettings, argv), argv))
    check_network_flags(settings)
    check_augment_flags(settings.min_side, settings.max_side, settings.train_sides, settings.augment)
    check_loss_flags(settings)
    check_optimisation_flags(settings)
    check_run_flags(settings)
    return settings


def with_recipe(settings: TrainSettings, argv: list[str] | None) -> TrainSettings:
    """The `settings` of `argv` with those of their recipe where `argv` gives none itself."""
    of_recipe = RECIPES[settings.recipe]
    if not of_recipe:
        return settings
    displaced = {name for name, other in INSTEAD.items() if given(settings, other)}
    if settings.weights == "coco":
        displaced.add("iou_branch")  # a detector without one
    parser = build_parser()
    parser.set_defaults(**{name: value for name, value in of_recipe.items() if name not in displaced})
    parser.set_defaults(backbone_rate=None)  # as train_sides: filled in when the rest is known
    settings = parsed(parser, TrainSettings, argv)
    values = recipe_values(settings)
    return replace(
        settings,
        backbone_rate=settings.backbone_rate or values["backbone_rate"],
        train_sides=settings.train_sides or values["train_sides"],
    )


def batch_size(text: str) -> int:
    """An argparse type: a whole number from 1, or auto."""
    return AUTO_BATCH if text == "auto" else whole_number(1)(text)


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(TrainSettings, "Train a RetinaNet on a COCO-format data set.", most_used=MOST_USED)
    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="defaults of the other flags: published, those of the published runs; strong, for more accuracy "
        "on small sets: +0.031 AP with three seeds (benchmarks/accuracy.md)",
    )
    data = parser.add_argument_group("data")
    add_coco_path_flag(data)
    data.add_argument("--train_set", help="name of the set to train on")
    data.add_argument("--val_set", help="name of the set to evaluate on")
    add_augment_flags(data, batch_size, "images per batch; auto: as many as a GPU has memory for, tried at the start")
    data.add_argument(
        "--repeat_threshold",
        type=number_from(0, 1),
        help="draw images of rare classes more often: a class in a share f of the images sqrt(threshold / f) times, "
        "where that is above 1; 0: each once",
    )
    data.add_argument("--drop_last", action="store_true", help="leave out the images that don't fill a batch")
    data.add_argument(
        "--bad_images",
        choices=("stop", "skip"),
        help="at an image that can't be read: stop, or train without it (up to 1 in 100, or 5)",
    )
    add_network_flags(parser)
    add_loss_flags(parser)
    add_optimisation_flags(parser)
    add_speed_flags(parser)
    add_output_flags(parser)
    add_detection_flags(parser)
    add_eval_backend_flag(parser)
    add_safety_flags(parser)
    add_machine_flags(parser)
    return parser

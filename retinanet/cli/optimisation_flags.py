"""Flags of the optimiser, its schedule and the seed."""

import argparse

from retinanet.cli.flags import given, number_above, number_from, whole_number
from retinanet.detector.settings import STAGES
from retinanet.runtime.errors import UserError
from retinanet.training.settings import OPTIMIZERS, RANDOM, SCHEDULES, TrainSettings


def add_optimisation_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=whole_number(1), help="passes over the training set")
    group.add_argument("--optimizer", choices=OPTIMIZERS, help="sgd has momentum 0.9")
    group.add_argument("--learning_rate", type=number_above(0), help="its highest value; --find_lr suggests one")
    group.add_argument(
        "--backbone_rate",
        type=number_above(0),
        nargs="+",
        help="the ResNet's share of the learning rate, but for stages that --weights leaves random; or one share for "
        f"each of its stages: {', '.join(STAGES)}",
    )
    group.add_argument(
        "--weight_decay", type=number_from(0), help="of all weights but biases and the scales of normalisations"
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="learning rate: step, divided by 10 at --milestones; cosine, down to 0 at the end of the last epoch",
    )
    group.add_argument(
        "--milestones", type=whole_number(0), nargs="*", help="epochs at which the learning rate is divided by 10"
    )
    group.add_argument(
        "--warmup_steps", type=whole_number(0), help="steps in which the learning rate rises from near 0"
    )
    group.add_argument(
        "--warmup_share", type=number_from(0, 0.9), help="the same as a share of the run's steps, such as 0.05"
    )
    group.add_argument("--accumulate", type=whole_number(1), help="gradient accumulation: batches per optimiser step")
    group.add_argument(
        "--ema_decay",
        type=number_from(0, 0.999999),
        help="also keep an exponential moving average of the weights with this decay; 0: none",
    )
    group.add_argument(
        "--ema_share",
        type=number_from(0, 0.5),
        help="the same, with a decay that averages over about this share of the run's steps, such as 0.05",
    )
    group.add_argument("--clip_norm", type=number_above(0), help="clip the gradient to this norm")
    group.add_argument(
        "--find_lr",
        action="store_true",
        help="instead of a training, try learning rates from 1e-7 to 1, suggest one and draw the losses",
    )
    group.add_argument("--steps", type=whole_number(50), help="with --find_lr: number of learning rates to try")
    group.add_argument(
        "--seed", type=seed, help="a whole number, or random: drawn and printed; with --resume the saved run's"
    )
    group.add_argument(
        "--seeds",
        type=whole_number(0),
        nargs="+",
        help="instead of --seed: train once with each, into {output_path}/seed{N}, and print mean and spread",
    )


def seed(text: str) -> int | str:
    """An argparse type: a whole number, or RANDOM, which is drawn later: here each rank would draw another one."""
    return text if text == RANDOM else whole_number(0)(text)


def check_optimisation_flags(settings: TrainSettings) -> None:
    """UserError where they contradict each other."""
    if settings.schedule == "cosine" and given(settings, "milestones"):
        raise UserError("--milestones are for --schedule step. Drop them, or give it")
    for name, other in (("warmup_share", "warmup_steps"), ("ema_share", "ema_decay")):
        if given(settings, name) and given(settings, other):
            raise UserError(f"--{name} and --{other} say the same in two ways. Give one")
    if len(settings.backbone_rate) not in (1, len(STAGES)):
        raise UserError(f"--backbone_rate has {len(settings.backbone_rate)} shares. Give one, or {len(STAGES)}")
    if settings.freeze_stages == len(STAGES) and given(settings, "backbone_rate"):
        raise UserError(f"--freeze_stages {len(STAGES)} leaves --backbone_rate nothing to train. Drop one of the two")
    if given(settings, "steps") and not settings.find_lr:
        raise UserError("--steps is for --find_lr; a training takes --epochs")
    if settings.seeds and given(settings, "seed"):
        raise UserError("--seed is for one run. Drop it, or --seeds")
    if settings.seeds and len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--seeds names a seed twice. Give each once")

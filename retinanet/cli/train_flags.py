"""The flags of train.py, in groups; the defaults are the published runs' numbers."""

import argparse
from pathlib import Path

from retinanet.cli.augment_flags import add_augment_flags
from retinanet.cli.flags import (
    ArgumentParser,
    HelpFormatter,
    add_detection_flags,
    add_eval_backend_flag,
    add_log_dir_flag,
    add_machine_flags,
    number_above,
    number_from,
    whole_number,
)
from retinanet.detector import settings as detector_settings
from retinanet.detector.settings import DEFAULT_LOSS, DEPTHS, STAGES
from retinanet.training import optimizer
from retinanet.training.optimizer import OPTIMIZERS
from retinanet.training.settings import RANDOM, SEED


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description="Train a RetinaNet on a COCO-format data set.", formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    data.add_argument("--train_set", default="train", help="name of the set to train on")
    data.add_argument("--val_set", default="val", help="name of the set to evaluate on")
    add_augment_flags(data)
    data.add_argument("--drop_last", action="store_true", help="leave out the images that don't fill a batch")
    data.add_argument(
        "--bad_images",
        choices=("stop", "skip"),
        default="stop",
        help="at an image that can't be read: stop, or train without it (up to 1 in 100)",
    )

    network = parser.add_argument_group("network")
    network.add_argument("--depth", type=int, choices=DEPTHS, default=50, help="layers of the ResNet")
    network.add_argument(
        "--channels", type=whole_number(1), default=detector_settings.CHANNELS, help="width of pyramid and heads"
    )
    network.add_argument(
        "--weights",
        default="imagenet",
        help="start of the ResNet: imagenet, imagenet_v2 (torchvision's first and newer weights, downloaded once), "
        "none, or a state dict FILE, which may hold a part of it; of the whole detector: coco (torchvision's "
        "retinanet_resnet50_fpn_v2, downloaded once), or a FILE of such a one",
    )
    network.add_argument(
        "--freeze_stages",
        type=whole_number(0, len(STAGES)),
        default=0,
        help="stages of the ResNet that stay as loaded: 1 the stem, 2 also layer1, ... 5 all",
    )
    network.add_argument(
        "--head_norm",
        choices=detector_settings.HEAD_NORMS,
        help="normalisation in the heads' towers (default: none; group with --weights coco)",
    )
    network.add_argument(
        "--prior", type=number_above(0, 0.999), default=detector_settings.PRIOR, help="score that all start with"
    )

    losses = parser.add_argument_group("loss")
    losses.add_argument(
        "--alpha", type=number_from(0, 1), default=DEFAULT_LOSS.alpha, help="focal loss: weight of objects"
    )
    losses.add_argument(
        "--gamma", type=number_from(0), default=DEFAULT_LOSS.gamma, help="focal loss: focus on hard anchors"
    )
    losses.add_argument(
        "--beta", type=number_above(0), default=DEFAULT_LOSS.beta, help="smooth L1: where it turns linear"
    )
    losses.add_argument(
        "--foreground_iou",
        type=number_above(0, 1),
        default=DEFAULT_LOSS.foreground_iou,
        help="anchors that overlap an object so much must find it",
    )
    losses.add_argument(
        "--background_iou",
        type=number_from(0, 1),
        default=DEFAULT_LOSS.background_iou,
        help="anchors that overlap all objects less must find nothing",
    )
    losses.add_argument(
        "--matcher",
        choices=detector_settings.MATCHERS,
        default="iou",
        help="which anchors must find an object: iou, those above; low_quality, also those that overlap it most, "
        "however little; atss, those that overlap it more than most near it do (ATSS)",
    )
    losses.add_argument(
        "--box_loss",
        choices=detector_settings.BOX_LOSSES,
        default="smooth_l1",
        help="of the boxes' code, or of their overlap",
    )
    losses.add_argument(
        "--ignore_crowds", action="store_true", help="anchors in crowd regions are no background to learn from"
    )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--epochs", type=whole_number(1), default=72)
    optimisation.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    optimisation.add_argument("--learning_rate", type=number_above(0), default=optimizer.LEARNING_RATE)
    optimisation.add_argument(
        "--backbone_rate",
        type=number_above(0),
        nargs="+",
        default=[1.0],
        help=f"share of the rate that the ResNet has; or a share for each of its parts: {', '.join(STAGES)}",
    )
    optimisation.add_argument(
        "--weight_decay", type=number_from(0), default=0.0, help="of all weights but biases and the norms' scales"
    )
    optimisation.add_argument(
        "--schedule",
        choices=optimizer.KINDS,
        default="step",
        help="of the rate: divided by 10 at --milestones, or a cosine down to 0 at the end of the last epoch",
    )
    optimisation.add_argument(
        "--milestones", type=whole_number(0), nargs="*", default=[48, 64], help="epochs that divide the rate by 10"
    )
    optimisation.add_argument(
        "--warmup_steps", type=whole_number(0), default=0, help="steps in which the rate rises from near 0"
    )
    optimisation.add_argument(
        "--accumulate",
        type=whole_number(1),
        default=1,
        help="batches of a step: trains as a --batch_size so many times as large does, in the memory of one",
    )
    optimisation.add_argument(
        "--ema_decay",
        type=number_from(0, 0.999999),
        default=0.0,
        help="keep an average of the weights too, of which this share stays at each step; 0: none",
    )
    optimisation.add_argument("--clip_norm", type=number_above(0), default=0.1, help="largest norm of the gradient")
    optimisation.add_argument(
        "--find_lr", action="store_true", help="train nothing, but try rates from 1e-7 to 1, say and draw which to take"
    )
    optimisation.add_argument(
        "--seed",
        type=seed,
        default=SEED,
        help="a whole number, or random: drawn and printed; with --resume the saved run's",
    )

    optimisation.add_argument(
        "--seeds",
        type=whole_number(0),
        nargs="+",
        help="instead of --seed: train once with each, into {output_path}/seed{N}, and tell mean and spread",
    )

    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="torch.compile the step, for a few padded shapes; auto: on a GPU, if the run is long enough to repay it",
    )
    speed.add_argument(
        "--cache",
        choices=("none", "ram"),
        default="none",
        help="ram: keep the decoded and resized training images in memory, as many as fit in half of what is free, "
        "which the processes of a machine share",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--output_path", type=Path, default=Path("output"), help="folder of checkpoints and run.json")
    output.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output_path, to the same numbers; a folder without one gets a new run",
    )
    output.add_argument(
        "--save_every", type=whole_number(0), default=0, help="iterations between saves of last.pt within an epoch"
    )
    output.add_argument("--eval_every", type=whole_number(1), default=10, help="epochs between evaluations")
    output.add_argument("--log_every", type=whole_number(1), default=100, help="iterations between lines of the log")
    add_log_dir_flag(output)
    add_detection_flags(parser)
    add_eval_backend_flag(parser)

    safety = parser.add_argument_group("safety")
    safety.add_argument(
        "--max_skipped",
        type=whole_number(1),
        default=10,
        help="steps in a row whose loss or gradient is not finite, then the run ends; each leaves the weights alone",
    )
    safety.add_argument(
        "--timeout",
        type=number_above(0, 10**6),
        default=60.0,
        help="seconds that a loader's worker or another process is waited for, then the run ends",
    )
    safety.add_argument(
        "--deterministic", action="store_true", help="have a GPU repeat its numbers to the last digit; slower"
    )
    safety.add_argument(
        "--verify_resume",
        type=whole_number(1),
        metavar="N",
        help="train nothing, but compare 2N steps bit for bit with N steps, a checkpoint and N more",
    )
    add_machine_flags(parser)
    return parser


def seed(text: str) -> int | str:
    """An argparse type: a whole number, or RANDOM, which is drawn later: here each rank would draw its own."""
    return text if text == RANDOM else whole_number(0)(text)

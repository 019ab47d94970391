"""Flags of the network and the weights that it starts from."""

import argparse
from dataclasses import replace

from retinanet.checkpoints.settings import (
    DEPTHS_OF_V2,
    DETECTOR_CHANNELS,
    DETECTOR_DEPTH,
    DETECTOR_HEAD_NORM,
    NORM_STATISTICS,
    default_statistics,
)
from retinanet.cli.flags import number_above, whole_number
from retinanet.cli.shared_flags import add_anchor_flags, check_anchor_flags
from retinanet.detector.settings import DEPTHS, HEAD_NORMS, NORM_GROUPS, STAGES
from retinanet.runtime.errors import UserError
from retinanet.training.recipes import STRONG
from retinanet.training.settings import TrainSettings


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--depth", type=int, choices=DEPTHS, help="layers of the ResNet")
    group.add_argument("--channels", type=whole_number(1), help="width of the pyramid and the heads")
    group.add_argument(
        "--weights",
        help="initial weights of the ResNet: imagenet, imagenet_v2 (torchvision's old and new ones, downloaded once), "
        "none, or a FILE with a state dict, which may hold only a part; of the whole detector: coco (torchvision's "
        "retinanet_resnet50_fpn_v2, downloaded once), or a FILE with its state dict, or a checkpoint of train.py",
    )
    group.add_argument(
        "--freeze_stages",
        type=whole_number(0, len(STAGES)),
        help="stages of the ResNet that are not trained: 1 the stem, 2 also layer1, ... 5 all",
    )
    group.add_argument(
        "--head_norm",
        choices=HEAD_NORMS,
        default=None,
        help="normalisation in the heads (default: none; group with --weights coco)",
    )
    group.add_argument(
        "--norm_statistics",
        choices=NORM_STATISTICS,
        default=None,
        help="statistics of batch norm: frozen as loaded; auto, those that the weights lack are measured on training "
        "images first; learned (default: frozen; learned with --weights none)",
    )
    group.add_argument(
        "--prior",
        type=number_above(0, 0.999),
        help="initial score of every anchor and class (sets the classification bias)",
    )
    group.add_argument(
        "--iou_branch",
        action="store_true",
        help="also predict each box's IoU with its object, which a detection's score then counts in",
    )
    group.add_argument("--no_iou_branch", dest="iou_branch", action="store_false", help="where a recipe would have one")
    add_anchor_flags(group)


def settled_norms(settings: TrainSettings) -> TrainSettings:
    """The settings with the normalisation in the heads and the statistics, whose defaults depend on the weights."""
    return replace(
        settings,
        head_norm=settings.head_norm or (DETECTOR_HEAD_NORM if settings.weights == "coco" else "none"),
        norm_statistics=settings.norm_statistics
        or default_statistics(settings.weights, "auto" if settings.recipe == STRONG else "frozen"),
    )


def check_network_flags(settings: TrainSettings) -> None:
    """UserError where they contradict each other."""
    check_anchor_flags(settings.anchor_ratios)
    weights = settings.weights
    if weights == "coco" and settings.depth != DETECTOR_DEPTH:
        raise UserError(f"--weights coco is a detector of --depth {DETECTOR_DEPTH}. Give that depth")
    if weights == "coco" and settings.channels != DETECTOR_CHANNELS:
        raise UserError(f"--weights coco is a detector of --channels {DETECTOR_CHANNELS}. Drop --channels")
    if weights == "coco" and settings.head_norm != DETECTOR_HEAD_NORM:
        raise UserError(f"--weights coco is a detector of --head_norm {DETECTOR_HEAD_NORM}. Drop --head_norm")
    if weights == "coco" and settings.iou_branch:
        raise UserError("--weights coco is a detector without an IoU branch. Drop --iou_branch")
    if settings.head_norm == "group" and settings.channels % NORM_GROUPS:
        raise UserError(
            f"--head_norm group needs --channels that are a multiple of {NORM_GROUPS}, not {settings.channels}"
        )
    if weights == "imagenet_v2" and settings.depth not in DEPTHS_OF_V2:
        depths = ", ".join(map(str, DEPTHS_OF_V2))
        raise UserError(f"--weights imagenet_v2 exists for --depth {depths}. Give one of them, or --weights imagenet")
    if weights == "none" and settings.norm_statistics != "learned":
        raise UserError(
            f"--weights none has no statistics that --norm_statistics {settings.norm_statistics} could keep. Drop it"
        )
    if weights == "none" and settings.freeze_stages:
        raise UserError("--freeze_stages would keep the random weights of --weights none. Drop one of the two")

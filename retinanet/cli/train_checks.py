"""Flags of train.py that contradict each other, before any file is looked at."""

import argparse
from typing import Any

from retinanet.checkpoints import pretrained_detector
from retinanet.checkpoints.pretrained_backbone import DEPTHS_OF_V2
from retinanet.cli.augment_flags import check_augment_flags
from retinanet.cli.flags import plain_settings
from retinanet.cli.train_flags import build_parser
from retinanet.data.settings import FROM_ORIGINAL
from retinanet.detector.settings import NORM_GROUPS, STAGES
from retinanet.runtime.ranks import Ranks
from retinanet.training.losses import lacking_for_compilation


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace, ranks: Ranks) -> None:
    """End the program at the first contradiction; settle defaults that depend on other flags."""
    check_network_flags(parser, args)
    check_augment_flags(parser, args)
    _check_loss_flags(parser, args)
    _check_optimisation_flags(parser, args)
    _check_speed_flags(parser, args, ranks)
    _check_what_is_run(parser, args, ranks)


def _check_loss_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.background_iou > args.foreground_iou:
        parser.error(f"--background_iou {args.background_iou} is above --foreground_iou {args.foreground_iou}")
    for name in ("foreground_iou", "background_iou"):
        if args.matcher == "atss" and getattr(args, name) != parser.get_default(name):
            parser.error(f"--matcher atss finds the IoU of each object itself. Leave --{name} away")
    if args.box_loss == "giou" and args.beta != parser.get_default("beta"):
        parser.error("--beta is for --box_loss smooth_l1. Leave it away with giou")


def _check_optimisation_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.schedule == "cosine" and args.milestones != parser.get_default("milestones"):
        parser.error("--milestones are for --schedule step. Leave them or --schedule cosine away")
    if len(args.backbone_rate) not in (1, len(STAGES)):
        parser.error(f"--backbone_rate has {len(args.backbone_rate)} shares. Give one, or {len(STAGES)}")
    if args.freeze_stages == len(STAGES) and args.backbone_rate != parser.get_default("backbone_rate"):
        parser.error(f"--freeze_stages {args.freeze_stages} leaves nothing to --backbone_rate. Leave one of them away")


def _check_speed_flags(parser: argparse.ArgumentParser, args: argparse.Namespace, ranks: Ranks) -> None:
    if args.cache == "ram":
        for flag, values in (("train_sides", args.train_sides), ("augment", FROM_ORIGINAL & {*(args.augment or ())})):
            if values:
                parser.error(
                    f"--cache ram keeps images of one size, which does not do for --{flag} "
                    f"{' '.join(map(str, sorted(values)))}. Leave one of them away"
                )
    lacking = lacking_for_compilation(args.device)
    if args.compile == "on" and lacking:
        parser.error(f"--compile on needs {lacking}. Install it, or leave the flag away")
    if args.compile == "on" and ranks.size > 1:
        parser.error("--compile on is for one process. Leave the flag away under torchrun")


def _check_what_is_run(parser: argparse.ArgumentParser, args: argparse.Namespace, ranks: Ranks) -> None:
    alone = [f"--{name}" for name in ("verify_resume", "find_lr") if getattr(args, name)]
    if alone and ranks.size > 1:
        parser.error(f"{alone[0]} is for one process. Run it without torchrun")
    if len(alone) > 1:
        parser.error(f"{alone[0]} and {alone[1]} train nothing to keep. Give one of them")
    for name in ("resume", "seeds", "log_dir"):
        if alone and getattr(args, name):
            parser.error(f"{alone[0]} trains nothing to keep. Leave --{name} away")
    if args.seeds and args.seed != parser.get_default("seed"):
        parser.error("--seed is for one run. Leave it or --seeds away")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds has a seed twice. Give each once")


def check_network_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where the network's flags contradict each other; settle the default of --head_norm."""
    weights = args.weights
    if weights == "coco" and args.depth != pretrained_detector.DEPTH:
        parser.error(f"--weights coco is a detector of --depth {pretrained_detector.DEPTH}. Give that depth")
    if weights == "coco" and args.channels != pretrained_detector.CHANNELS:
        parser.error(f"--weights coco is a detector of --channels {pretrained_detector.CHANNELS}. Drop --channels")
    if weights == "coco" and args.head_norm == "none":
        parser.error("--weights coco is a detector of --head_norm group. Leave --head_norm away")
    if args.head_norm is None:
        args.head_norm = pretrained_detector.HEAD_NORM if weights == "coco" else "none"
    if args.head_norm == "group" and args.channels % NORM_GROUPS:
        parser.error(f"--head_norm group needs --channels that {NORM_GROUPS} divides, not {args.channels}")
    if weights == "imagenet_v2" and args.depth not in DEPTHS_OF_V2:
        depths = ", ".join(map(str, DEPTHS_OF_V2))
        parser.error(f"--weights imagenet_v2 is there for --depth {depths}. Give one of them, or --weights imagenet")
    if weights == "none" and args.freeze_stages:
        parser.error("--freeze_stages would leave the weights of --weights none random. Leave one of them away")


def _defaults() -> dict[str, Any]:
    parser = build_parser()
    args = parser.parse_args([])
    check_network_flags(parser, args)
    return plain_settings(args)

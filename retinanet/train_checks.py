"""Flags of train.py that contradict each other, before any file is looked at."""

import argparse

from retinanet.augment_flags import check_augment_flags
from retinanet.augmentation import FROM_ORIGINAL
from retinanet.backbone import STAGES
from retinanet.compute import lacking_for_compilation
from retinanet.distributed import Ranks
from retinanet.network_setup import check_network_flags


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

"""Flags of the loss."""

import argparse

from retinanet.cli.flags import given, number_above, number_from
from retinanet.detector.settings import BOX_LOSSES, CLASS_LOSSES, MATCHERS
from retinanet.runtime.errors import UserError
from retinanet.training.settings import TrainSettings


def add_loss_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loss")
    group.add_argument("--alpha", type=number_from(0, 1), help="focal loss: weight of the objects")
    group.add_argument("--gamma", type=number_from(0), help="focal loss: how far it favours hard anchors")
    group.add_argument("--beta", type=number_above(0), help="smooth L1: error from which it is linear")
    group.add_argument(
        "--foreground_iou", type=number_above(0, 1), help="IoU with an object from which an anchor is foreground"
    )
    group.add_argument(
        "--background_iou", type=number_from(0, 1), help="IoU with every object below which an anchor is background"
    )
    group.add_argument(
        "--matcher",
        choices=MATCHERS,
        help="how anchors are matched to objects: iou, by --foreground_iou; low_quality, also the anchors that overlap "
        "an object most, however little; atss, by the statistics of the nearest anchors' IoU (ATSS)",
    )
    group.add_argument(
        "--class_loss",
        choices=CLASS_LOSSES,
        help="focal: the score of an object is to be 1; quality: its box's IoU (quality focal loss)",
    )
    group.add_argument("--box_loss", choices=BOX_LOSSES, help="smooth L1 on the deltas, or GIoU on the boxes")
    group.add_argument(
        "--ignore_crowds",
        action="store_true",
        help="ignore anchors in crowd regions instead of taking them for background",
    )
    group.add_argument(
        "--no_ignore_crowds", dest="ignore_crowds", action="store_false", help="where a recipe would ignore them"
    )


def check_loss_flags(settings: TrainSettings) -> None:
    """UserError where they contradict each other."""
    if settings.background_iou > settings.foreground_iou:
        raise UserError(
            f"--background_iou {settings.background_iou} is above --foreground_iou {settings.foreground_iou}"
        )
    for name in ("foreground_iou", "background_iou"):
        if settings.matcher == "atss" and given(settings, name):
            raise UserError(f"--matcher atss finds the IoU of each object itself. Drop --{name}")
    if settings.class_loss == "quality" and given(settings, "alpha"):
        raise UserError("--alpha is for --class_loss focal. Drop it, or give that")
    if settings.box_loss == "giou" and given(settings, "beta"):
        raise UserError("--beta is for --box_loss smooth_l1. Drop it, or give that")

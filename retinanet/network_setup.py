"""The network that the flags ask for, at its start or as a saved run left it."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet import coco_weights
from retinanet.backbone import DEPTHS_OF_V2, imagenet_state, load_backbone, modules_of, read_state_file
from retinanet.checkpoint import build_model
from retinanet.command_line import say
from retinanet.errors import UserError
from retinanet.model import NORM_GROUPS, RetinaNet
from retinanet.resume import SavedRun


def check_network_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where the network's flags contradict each other; settle the default of --head_norm."""
    weights = args.weights
    if weights == "coco" and args.depth != coco_weights.DEPTH:
        parser.error(f"--weights coco is a detector of --depth {coco_weights.DEPTH}. Give that depth")
    if weights == "coco" and args.channels != coco_weights.CHANNELS:
        parser.error(f"--weights coco is a detector of --channels {coco_weights.CHANNELS}. Leave --channels away")
    if weights == "coco" and args.head_norm == "none":
        parser.error("--weights coco is a detector of --head_norm group. Leave --head_norm away")
    if args.head_norm is None:
        args.head_norm = coco_weights.HEAD_NORM if weights == "coco" else "none"
    if args.head_norm == "group" and args.channels % NORM_GROUPS:
        parser.error(f"--head_norm group needs --channels that {NORM_GROUPS} divides, not {args.channels}")
    if weights == "imagenet_v2" and args.depth not in DEPTHS_OF_V2:
        depths = ", ".join(map(str, DEPTHS_OF_V2))
        parser.error(f"--weights imagenet_v2 is there for --depth {depths}. Give one of them, or --weights imagenet")
    if weights == "none" and args.freeze_stages:
        parser.error("--freeze_stages would leave the weights of --weights none random. Leave one of them away")


def build_network(args: argparse.Namespace, class_names: Sequence[str], saved: SavedRun | None) -> RetinaNet:
    """The network at its start, or `saved`'s; UserError where its weights can't be had or don't fit."""
    learn_statistics = args.weights == "none"
    if saved:
        network = build_model(saved.checkpoint, saved.path, learn_statistics)
    else:
        state, source = _read_weights(args.weights, args.depth)
        is_detector = coco_weights.is_detector(state)
        network = RetinaNet(
            len(class_names),
            args.depth,
            args.channels,
            args.prior,
            learn_statistics,
            head_norm=args.head_norm,
            level_code=is_detector,
        )
        if is_detector:
            _load_detector(network, class_names, state, source, args)
        elif not learn_statistics:
            _load_backbone(network, state, source, args.freeze_stages)
    network.backbone.freeze(args.freeze_stages)
    return network


def _read_weights(weights: str, depth: int) -> tuple[dict[str, Any], str]:
    """The state dict that --weights asks for, empty for none, and what to call it in a message."""
    match weights:
        case "none":
            return {}, "none"
        case "imagenet":
            return imagenet_state(depth), f"torchvision's resnet{depth}"
        case "imagenet_v2":
            return imagenet_state(depth, "V2"), f"torchvision's resnet{depth} (V2)"
        case "coco":
            return coco_weights.coco_state(), "torchvision's retinanet_resnet50_fpn_v2"
    return read_state_file(weights), weights


def _load_detector(
    network: RetinaNet, class_names: Sequence[str], state: Mapping[str, Any], source: str, args: argparse.Namespace
) -> None:
    depth, channels, norm = coco_weights.DEPTH, coco_weights.CHANNELS, coco_weights.HEAD_NORM
    if (args.depth, args.channels, args.head_norm) != (depth, channels, norm):
        raise UserError(
            f"{source}: a detector, which --depth {args.depth} --channels {args.channels} --head_norm {args.head_norm} "
            f"doesn't fit. Give --depth {depth} --channels {channels} --head_norm {norm}."
        )
    report = coco_weights.load_detector(network, class_names, state, source)
    say(f"Detector weights: loaded from {source}")
    say(f"Classes that it knows: {', '.join(report.kept) or 'none'}")
    say(f"Classes that start anew: {', '.join(report.new) or 'none'}")


def _load_backbone(network: RetinaNet, state: Mapping[str, Any], source: str, num_frozen: int) -> None:
    report = load_backbone(network.backbone, state, source)
    lacking = [name for name in report.missing if name.split(".")[0] in modules_of(num_frozen)]
    if lacking:
        raise UserError(
            f"{source}: lacks {', '.join(lacking)}, which --freeze_stages {num_frozen} would leave random. Give a file "
            "that holds it, or a lower --freeze_stages."
        )
    say(f"Backbone weights: {report.num_loaded} of {report.num_tensors} tensors loaded from {source}")
    say(f"Backbone weights that it lacks, random then: {', '.join(report.missing) or 'none'}")
    say(f"Weights in it without use: {', '.join(report.unused) or 'none'}")

"""The network that the flags ask for, at its start or as a saved run left it."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet.checkpoints import pretrained_detector
from retinanet.checkpoints.checkpoint import build_model
from retinanet.checkpoints.pretrained_backbone import imagenet_state, load_backbone, read_state_file
from retinanet.checkpoints.resume import SavedRun
from retinanet.detector.backbone import modules_of
from retinanet.detector.model import RetinaNet
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError


def build_network(args: argparse.Namespace, class_names: Sequence[str], saved: SavedRun | None) -> RetinaNet:
    """The network at its start, or `saved`'s; UserError where its weights can't be had or don't fit."""
    learn_statistics = args.weights == "none"
    if saved:
        network = build_model(saved.checkpoint, saved.path, learn_statistics)
    else:
        state, source = _read_weights(args.weights, args.depth)
        is_detector = pretrained_detector.is_detector(state)
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
            return pretrained_detector.coco_state(), "torchvision's retinanet_resnet50_fpn_v2"
    return read_state_file(weights), weights


def _load_detector(
    network: RetinaNet, class_names: Sequence[str], state: Mapping[str, Any], source: str, args: argparse.Namespace
) -> None:
    depth, channels, norm = pretrained_detector.DEPTH, pretrained_detector.CHANNELS, pretrained_detector.HEAD_NORM
    if (args.depth, args.channels, args.head_norm) != (depth, channels, norm):
        raise UserError(
            f"{source}: a detector, which --depth {args.depth} --channels {args.channels} --head_norm {args.head_norm} "
            f"doesn't fit. Give --depth {depth} --channels {channels} --head_norm {norm}."
        )
    report = pretrained_detector.load_detector(network, class_names, state, source)
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

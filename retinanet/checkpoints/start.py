"""Builds the network of a run, with random or pretrained weights, or with the weights of a saved run."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.checkpoints import pretrained_detector
from retinanet.checkpoints.checkpoint import build_model, is_checkpoint, run_in
from retinanet.checkpoints.pretrained_backbone import LoadReport, imagenet_state, load_backbone
from retinanet.checkpoints.published_detectors import recognised
from retinanet.checkpoints.resume import SavedRun
from retinanet.checkpoints.state_dicts import read_file, state_in
from retinanet.detector.backbone import modules_of
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import STAGES
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.settings.options import with_values
from retinanet.settings.train import (
    Network,
    TrainSettings,
    as_flags,
    differences,
    network_values,
    require_detector,
    with_parts_without_flags,
)

NAMED_WEIGHTS = ("imagenet", "imagenet_v2", "coco", "none")
WEIGHTS_FILE = "a state dict or a checkpoint of train.py"


class Start(NamedTuple):
    """A network, and the stages of its backbone whose weights were not loaded."""

    network: RetinaNet
    random_stages: list[str]  # of STAGES


def build_network(
    settings: Network,
    class_names: Sequence[str],
    saved: SavedRun | None,
    measure: Callable[[RetinaNet, Sequence[str]], None] = lambda _network, _names: None,
) -> Start:
    """Builds the network with the weights of the `saved` run or, without one, the weights that --weights selects.

    If --norm_statistics is auto, `measure` is called with the network and the names of batch norms without statistics.
    Raises UserError if weights are missing or don't fit.
    """
    learn_statistics = settings.norm_statistics == "learned"
    random_stages: list[str] = []
    if saved:
        network = build_model(saved.checkpoint, saved.path, learn_statistics)
        random_stages = saved.random_stages()
    else:
        content, source = _read_weights(settings.weights, settings.depth)
        earlier = run_in(content, Path(source))[0] if is_checkpoint(content) else None
        state = {} if earlier else state_in(content, source)
        detector = recognised(state, content, source)
        architecture = settings.architecture
        if earlier:
            architecture = with_parts_without_flags(architecture, earlier.architecture)
        elif detector:
            own = pretrained_detector.architecture_of(detector, settings.anchors.shapes, source)
            require_detector(settings, source, own)
            architecture = own
        network = RetinaNet(
            architecture,
            len(class_names),
            prior=settings.prior,
            learn_statistics=learn_statistics,
        )
        if earlier:
            report = pretrained_detector.load_checkpoint_weights(network, class_names, earlier, Path(source))
            _say_classes("Checkpoint weights", source, report)
        elif detector:
            report = pretrained_detector.load_detector(network, class_names, detector, source)
            _say_classes("Detector weights", source, report)
            say(f"Recognised as {detector.source.title}")
        elif settings.weights == "none":
            random_stages = list(STAGES)
        else:
            loaded = _load_backbone(network, state, source, settings.freeze_stages)
            random_stages = [stage for stage, modules in STAGES.items() if set(modules) <= set(loaded.missing)]
            _settle_statistics(network, loaded.unmeasured, settings.norm_statistics, measure)
    network.backbone.freeze(settings.freeze_stages)
    return Start(network, random_stages)


def with_saved_network(settings: TrainSettings, saved: SavedRun | None) -> TrainSettings:
    """Returns `settings` with the network's values from the `saved` run or, failing that, from a detector in --weights.

    Flags that were given keep their values; require_same_run and build_network refuse contradictions.
    """
    weights = settings.network.weights
    if saved:
        own, source = saved.checkpoint.architecture, saved.path
    elif weights not in NAMED_WEIGHTS and Path(weights).exists():
        source = Path(weights)
        content = read_file(source, WEIGHTS_FILE)
        if is_checkpoint(content):
            own = run_in(content, source)[0].architecture
        elif detector := recognised(state_in(content, source), content, source):
            own = pretrained_detector.architecture_of(detector, settings.network.anchors.shapes, weights)
        else:
            return settings
    else:
        return settings
    values = network_values(own)
    taken = with_values(settings, {name: values[name] for name in values.keys() - settings.given})
    if taken.network != settings.network and not differences(own, taken.network.architecture):
        say(f"Network: as in {source}, {' '.join(as_flags(taken.network.architecture))}")
    return taken


def settings_of_weights(weights: str) -> dict[str, Any]:
    """Returns the settings of the run whose checkpoint --weights names, or an empty dict for any other weights."""
    if weights in NAMED_WEIGHTS or not Path(weights).exists():
        return {}
    content = read_file(Path(weights), WEIGHTS_FILE)
    return run_in(content, Path(weights))[0].settings if is_checkpoint(content) else {}


def require_weights(weights: str, depth: int) -> None:
    """Raises UserError if the weights that --weights selects can't be read or downloaded."""
    _read_weights(weights, depth)


def _read_weights(weights: str, depth: int) -> tuple[dict[str, Any], str]:
    """Returns the content of the file that --weights selects (empty for `none`), and its name for messages."""
    match weights:
        case "none":
            return {}, "none"
        case "imagenet":
            return imagenet_state(depth), f"torchvision's resnet{depth}"
        case "imagenet_v2":
            return imagenet_state(depth, "V2"), f"torchvision's resnet{depth} (V2)"
        case "coco":
            return pretrained_detector.coco_state(), "torchvision's retinanet_resnet50_fpn_v2"
    if not Path(weights).exists():
        close = difflib.get_close_matches(weights, NAMED_WEIGHTS, n=1)
        meant = f"did you mean {close[0]}?" if close else "no such file."
        raise UserError(f"--weights {weights}: {meant} Use {', '.join(NAMED_WEIGHTS)}, or the path of a file.")
    content = read_file(Path(weights), WEIGHTS_FILE)
    if not is_checkpoint(content):
        state_in(content, weights)
    return content, weights


def _say_classes(what: str, source: str, report: pretrained_detector.ClassReport) -> None:
    say(f"{what}: loaded from {source}")
    say(f"Classes that keep their weights: {', '.join(report.kept) or 'none'}")
    say(f"Classes that start from scratch: {', '.join(report.new) or 'none'}")
    for note in report.notes:
        say(f"Note: {note}")


def _load_backbone(network: RetinaNet, state: Mapping[str, Any], source: str, num_frozen: int) -> LoadReport:
    report = load_backbone(network.backbone, state, source)
    lacking = [name for name in report.missing if name.split(".")[0] in modules_of(num_frozen)]
    if lacking:
        raise UserError(
            f"{source}: lacks {', '.join(lacking)}, which --freeze_stages {num_frozen} would leave random. Use a "
            "complete file, or a lower --freeze_stages."
        )
    say(f"Backbone weights: {report.num_loaded} of {report.num_tensors} tensors loaded from {source}")
    say(f"Backbone weights missing from the file, so random: {', '.join(report.missing) or 'none'}")
    say(f"Weights there that are not used: {', '.join(report.unused) or 'none'}")
    return report


def _settle_statistics(
    network: RetinaNet, unmeasured: list[str], statistics: str, measure: Callable[[RetinaNet, Sequence[str]], None]
) -> None:
    stages = ", ".join(dict.fromkeys(name.partition(".")[0] for name in unmeasured))
    if unmeasured and statistics == "auto":
        measure(network, unmeasured)
        say(f"Batch-norm statistics missing from the file, so measured on training images, then frozen: {stages}")
    elif unmeasured and statistics == "frozen":
        say(
            f"Hint: the file has no batch-norm statistics for {stages}; they stay at mean 0 and variance 1. "
            "--norm_statistics auto measures them"
        )

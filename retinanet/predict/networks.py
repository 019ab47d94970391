"""Opens checkpoints and exported files for inference, and reads their metadata."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, checkpoint_line, is_white_level, load_checkpoint
from retinanet.coco.score_thresholds import USUAL_THRESHOLD, saved_threshold, threshold_text
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Candidates
from retinanet.evaluation.detect_set import fastest_form
from retinanet.evaluation.views import Look, look_with
from retinanet.predict.runners import ONNX, OPENVINO, Runner, onnx_runner, openvino_runner
from retinanet.runtime.device import choose_precision, find_device
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.shared import OVERLAP, UPRIGHT, WHITE_LEVEL, Tiles, tiles_from

DETECTIONS = ("boxes", "scores", "labels")  # outputs of every exported file
CANDIDATES = tuple(f"candidate_{name}" for name in DETECTIONS)  # before NMS; missing in files of earlier versions
EXPORT = "python -m retinanet.export"
PROGRAMS = {ONNX: "ONNX", OPENVINO: "OpenVINO"}


class Trained(NamedTuple):
    """Holds the metadata that a file stores about its network and the run that trained it."""

    class_names: list[str]
    category_ids: list[int]
    min_side: int
    max_side: int
    batch_size: int
    threshold: float = USUAL_THRESHOLD
    # ONNX files of earlier versions lack some of these.
    white_level: int = WHITE_LEVEL
    exif: str = UPRIGHT
    depth: int | None = None
    epoch: int | None = None
    settings: Mapping[str, Any] = MappingProxyType({})  # the run's flags
    tile: int | None = None  # the side of the tiles that the run trained on
    overlap: float | None = None

    def tiles(self, tile: int | None, overlap: float | None) -> Tiles | None:
        """Returns the tile settings for detection; None if there are no tiles.

        An argument of None stands for the run's own value; a `tile` of 0 turns tiles off. Raises UserError if
        `overlap` is given without tiles.
        """
        side = self.tile if tile is None else tile
        if not side:
            if overlap is not None:
                raise UserError("--overlap only applies with --tile. Set --tile too, or remove it.")
            return None
        return Tiles(side, next(each for each in (overlap, self.overlap, OVERLAP) if each is not None))


class Opened(NamedTuple):
    """An opened checkpoint or exported file."""

    trained: Trained
    device: torch.device
    line: str  # says what was opened
    defaults: DetectionSettings  # the file's own; the default threshold is in `trained`
    # Returns the Look for the given settings. Raises UserError if the file doesn't support them, or lacks the
    # candidates before NMS that the flags in the second argument need.
    look_for: Callable[[DetectionSettings, Sequence[str]], Look]


def opened(path: Path, device_name: str, precision_name: str, *, averaged: bool = True) -> Opened:
    """Opens a checkpoint or an exported file.

    With `averaged`, a checkpoint's averaged weights are used if it has any. Raises UserError if the file can't be used.
    """
    if path.suffix in PROGRAMS:
        if not averaged:
            raise UserError(f"--raw_weights: {path} holds a single set of weights. Use the checkpoint, or no flag.")
        return _opened_export(path, device_name, precision_name)
    device = find_device(device_name)
    checkpoint = load_checkpoint(path)

    def look_for(detection: DetectionSettings, _flags: Sequence[str]) -> Look:
        precision = choose_precision(precision_name, device)
        model = build_model(checkpoint, path, averaged=averaged).to(device).eval()
        with torch.no_grad():
            network = fastest_form(model, device, precision, detection.threshold)
        return look_with(network, detection.num_candidates, device=device, precision=precision)

    line = checkpoint_line(checkpoint, path, averaged=averaged)
    return Opened(trained_of(checkpoint), device, line, DEFAULT_DETECTION, look_for)


def trained_of(checkpoint: Checkpoint) -> Trained:
    """Returns the metadata of a checkpoint."""
    return Trained(
        checkpoint.class_names,
        checkpoint.category_ids,
        checkpoint.min_side,
        checkpoint.max_side,
        checkpoint.batch_size,
        USUAL_THRESHOLD if checkpoint.score_threshold is None else saved_threshold(checkpoint.score_threshold),
        checkpoint.white_level,
        checkpoint.exif,
        checkpoint.architecture.depth,
        checkpoint.epoch,
        checkpoint.settings,
        *(checkpoint.tiles or (None, None)),
    )


def _opened_export(path: Path, device_name: str, precision_name: str) -> Opened:
    """Opens an exported file. Its Look returns candidates before NMS or, for files of earlier versions, after NMS."""
    program = PROGRAMS[path.suffix]
    if not path.is_file():
        raise UserError(f"{path}: no such file. Pass a checkpoint, or a file that {EXPORT} wrote")
    try:
        runner = _runner_of(path, device_name, precision_name)
        facts = runner.facts
        optional = {name: facts[name] for name in ("white_level",) if is_white_level(facts.get(name))}
        if tiles := tiles_from(facts.get("tile"), facts.get("overlap")):
            optional |= {"tile": tiles.side, "overlap": tiles.overlap}
        optional |= {name: facts[name] for name in ("exif", "depth", "epoch", "settings") if name in facts}
        required = [name for name in Trained._fields if name not in Trained._field_defaults]
        trained = Trained(**{name: facts[name] for name in required}, **optional)
        exported = DetectionSettings(
            float(facts["least_score"]),
            int(facts["num_candidates"]),
            float(facts["nms_iou"]),
            int(facts["max_detections"]),
        )
        trained = trained._replace(threshold=max(saved_threshold(float(facts["threshold"])), exported.threshold))
    except UserError:
        raise
    except Exception as fault:  # damaged bytes can make onnxruntime and OpenVINO raise almost anything
        reason = " ".join((str(fault) or repr(fault)).split())
        raise UserError(
            f"{path}: not an {program} file of {EXPORT}, or damaged ({reason:.200}). Export the checkpoint again."
        ) from fault
    has_candidates = {*CANDIDATES} <= runner.outputs
    look = look_of(runner, CANDIDATES if has_candidates else DETECTIONS)

    def look_for(detection: DetectionSettings, flags: Sequence[str]) -> Look:
        _require_possible(path, exported, detection, has_candidates)
        if flags and not has_candidates:
            raise UserError(
                f"--{flags[0]}: {path} was exported by an earlier version and lacks the candidates before NMS, which "
                f"mirrored or resized images and tiles need. Export it again with {EXPORT}, or use the checkpoint"
            )
        return look

    epochs = "an unknown number of epochs" if trained.epoch is None else counted(trained.epoch, "epoch")
    line = f"Exported file: {path}, {program}, depth {trained.depth or 'unknown'}, after {epochs}"
    return Opened(trained, torch.device("cpu"), line, exported, look_for)


def look_of(runner: Runner, names: Sequence[str] = CANDIDATES) -> Look:
    """Returns a Look that runs an exported network and reads its outputs `names`: boxes, scores and labels."""

    def look(images: Tensor, sizes: Tensor) -> Candidates:
        return Candidates(*runner.run(names, images, sizes))

    return look


def _runner_of(path: Path, device_name: str, precision_name: str) -> Runner:
    if path.suffix == OPENVINO:
        return openvino_runner(path, device_name, choose_precision(precision_name, torch.device("cpu")))
    if precision_name not in ("auto", "float32"):
        raise UserError(f"--precision {precision_name}: {path} computes in float32. Use auto, or the checkpoint")
    return onnx_runner(path, device_name)


def _require_possible(
    path: Path, exported: DetectionSettings, detection: DetectionSettings, has_candidates: bool
) -> None:
    """Raises UserError if a file exported with the settings `exported` doesn't support the settings `detection`."""
    if np.float32(detection.threshold) < np.float32(exported.threshold):
        raise UserError(
            f"--threshold {threshold_text(detection.threshold)} is below {threshold_text(exported.threshold)}, at "
            f"which {path} was exported and below which it finds nothing. Export it with a lower --threshold"
        )
    for name in ("num_candidates",) if has_candidates else ("num_candidates", "nms_iou"):
        value, exported_value = getattr(detection, name), getattr(exported, name)
        if value != exported_value:
            raise UserError(
                f"--{name} {value:g}: {path} was exported with {exported_value:g}, which is fixed in it. Export it "
                f"with --{name} {value:g}, or use --{name} {exported_value:g}"
            )
    if detection.max_detections > exported.max_detections and not has_candidates:
        raise UserError(
            f"--max_detections {detection.max_detections} is above {exported.max_detections}, with which an earlier "
            f"version exported {path}. Export it again with {EXPORT}"
        )

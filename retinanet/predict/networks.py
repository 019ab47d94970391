"""Loads a trained network for inference, from a checkpoint or an ONNX file, with its metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, is_white_level, load_checkpoint
from retinanet.coco.score_thresholds import USUAL_THRESHOLD, saved_threshold, threshold_text
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.detector.structures import Candidates
from retinanet.evaluation.detect_set import fastest_form
from retinanet.evaluation.views import Look, look_with
from retinanet.predict.thresholds import Threshold, Thresholds, thresholds_of
from retinanet.runtime.device import choose_precision, find_device
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import WHITE_LEVEL

ONNX = ".onnx"
KEY = "retinanet."  # prefix of the names in the metadata
DETECTIONS = ("boxes", "scores", "labels")  # outputs of every ONNX file
CANDIDATES = tuple(f"candidate_{name}" for name in DETECTIONS)  # before NMS; missing in files of earlier versions
EXPORT = "python -m retinanet.export"


class Trained(NamedTuple):
    """Holds the metadata that a file stores about its network."""

    class_names: list[str]
    category_ids: list[int]
    min_side: int
    max_side: int
    batch_size: int
    threshold: float = USUAL_THRESHOLD
    white_level: int = WHITE_LEVEL  # missing in ONNX files of earlier versions


class ReadyNetwork(NamedTuple):
    look: Look  # returns all candidates above the lowest threshold
    trained: Trained
    device: torch.device
    thresholds: Thresholds
    detection: DetectionSettings = DEFAULT_DETECTION  # the defaults, except for the threshold


def network_of_checkpoint(
    path: Path, device_name: str, precision_name: str, threshold: Threshold, num_candidates: int
) -> ReadyNetwork:
    """Loads the network of a checkpoint, with the averaged weights if the checkpoint has them.

    Classes for which `threshold` has no value get the checkpoint's. Raises UserError if the checkpoint can't be used.
    """
    device = find_device(device_name)
    checkpoint = load_checkpoint(path)
    trained = trained_of(checkpoint)
    thresholds = thresholds_of(threshold, trained.threshold, trained.class_names, path)
    precision = choose_precision(precision_name, device)
    model = build_model(checkpoint, path, averaged=True).to(device).eval()
    with torch.no_grad():
        network = fastest_form(model, device, precision, thresholds.lowest)
    look = look_with(network, num_candidates, device=device, precision=precision)
    return ReadyNetwork(look, trained, device, thresholds)


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
    )


Overrides = Mapping[str, float | None]  # the other DetectionSettings; None leaves the choice to the file


def network_of_onnx(
    path: Path,
    device_name: str,
    precision_name: str,
    threshold: Threshold,
    overrides: Overrides,
    more_looks: Sequence[str],
) -> ReadyNetwork:
    """Loads the network of the ONNX file `path`.

    The result's `look` returns candidates before NMS or, if an earlier version exported the file, after NMS. Raises
    UserError if the file can't be used, or doesn't support the `threshold`, the `overrides` or the flags `more_looks`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Pass a checkpoint, or a file of {EXPORT}")
    try:
        session = session_of(path, device_name)
        texts = session.get_modelmeta().custom_metadata_map
        facts = {name.removeprefix(KEY): json.loads(text) for name, text in texts.items() if name.startswith(KEY)}
        optional = {name: facts[name] for name in ("white_level",) if is_white_level(facts.get(name))}
        required = [name for name in Trained._fields if name not in Trained._field_defaults]
        trained = Trained(**{name: facts[name] for name in required}, **optional)
        exported = DetectionSettings(
            float(facts["least_score"]),
            int(facts["num_candidates"]),
            float(facts["nms_iou"]),
            int(facts["max_detections"]),
        )
        trained = trained._replace(threshold=max(saved_threshold(float(facts["threshold"])), exported.threshold))
        has_candidates = {*CANDIDATES} <= {output.name for output in session.get_outputs()}
    except UserError:
        raise
    except Exception as fault:  # damaged bytes can make onnxruntime raise almost anything
        raise UserError(
            f"{path}: not an ONNX file of {EXPORT}, or damaged ({str(fault) or repr(fault):.200}). "
            "Export the checkpoint again."
        ) from fault
    if precision_name not in ("auto", "float32"):
        raise UserError(f"--precision {precision_name}: {path} computes in float32. Use auto, or the checkpoint")
    thresholds = thresholds_of(threshold, trained.threshold, trained.class_names, path)
    _require_possible(path, exported, thresholds.lowest, overrides, has_candidates)
    if more_looks and not has_candidates:
        raise UserError(
            f"--{more_looks[0]}: {path} was exported by an earlier version and lacks the candidates before NMS, which "
            f"several looks need. Export it again with {EXPORT}, or use the checkpoint"
        )
    names = CANDIDATES if has_candidates else DETECTIONS

    def look(images: Tensor, sizes: Tensor) -> Candidates:
        return Candidates(*outputs_of(session, names, images, sizes))

    return ReadyNetwork(look, trained, torch.device("cpu"), thresholds, exported)


def _require_possible(
    path: Path, exported: DetectionSettings, threshold: float, overrides: Overrides, has_candidates: bool
) -> None:
    """Raises UserError if a file exported with the settings `exported` doesn't support `threshold` or `overrides`."""
    most = overrides["max_detections"]
    if np.float32(threshold) < np.float32(exported.threshold):
        raise UserError(
            f"--threshold {threshold_text(threshold)} is below {threshold_text(exported.threshold)}, at which {path} "
            "was exported and below which it finds nothing. Export it with a lower --threshold"
        )
    fixed = ("num_candidates",) if has_candidates else ("num_candidates", "nms_iou")
    for name in fixed:
        value, exported_value = overrides[name], getattr(exported, name)
        if value is not None and value != exported_value:
            raise UserError(
                f"--{name} {value:g}: {path} was exported with {exported_value:g}, which is fixed in it. Export it "
                f"with --{name} {value:g}, or remove the flag"
            )
    if most is not None and most > exported.max_detections and not has_candidates:
        raise UserError(
            f"--max_detections {most} is above {exported.max_detections}, with which an earlier version exported "
            f"{path}. Export it again with {EXPORT}"
        )


def session_of(file: Path | bytes, device_name: str) -> Any:
    """Returns an onnxruntime session for a file, given by its path or its bytes.

    Raises UserError if onnxruntime or the device is missing.
    """
    library = _onnxruntime()
    return library.InferenceSession(file, providers=_providers(library, device_name))


def outputs_of(session: Any, names: Sequence[str], images: Tensor, sizes: Tensor) -> list[Tensor]:
    """Returns the outputs called `names`, computing only the part of the graph that they need."""
    options = _onnxruntime().RunOptions()
    options.only_execute_path_to_fetches = True
    feed = {"images": images.contiguous().numpy(), "sizes": sizes.numpy()}
    return [torch.from_numpy(output) for output in session.run(list(names), feed, options)]


def _providers(library: ModuleType, device_name: str) -> list[str]:
    """Returns the execution providers for ONNX Runtime: a GPU, if available and not excluded, then the CPU."""
    available = library.get_available_providers()
    has_gpu = "CUDAExecutionProvider" in available
    if device_name.startswith("cuda") and not has_gpu:
        raise UserError(
            f"--device {device_name}: this onnxruntime has no CUDA. Install onnxruntime-gpu, or use --device cpu"
        )
    return ["CUDAExecutionProvider"] * (has_gpu and device_name != "cpu") + ["CPUExecutionProvider"]


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX files need onnxruntime. Install it with: pip install onnxruntime") from None
    onnxruntime.set_default_logger_severity(4)  # errors are reported as UserError
    return onnxruntime

"""An ONNX file of python -m retinanet.export, run by onnxruntime."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet.coco.score_thresholds import saved_threshold, threshold_text
from retinanet.detector.structures import Candidates
from retinanet.evaluation.test_time_augmentation import Look
from retinanet.predict.networks import ReadyNetwork, Trained
from retinanet.runtime.errors import UserError

ONNX = ".onnx"
KEY = "retinanet."  # before the names in the metadata


def network_of_onnx(path: Path, device_name: str, threshold: float | None) -> ReadyNetwork:
    """The network in `path`, whose own NMS has run when it gives its candidates.

    UserError where it can't be used, or with a threshold below the one that it was exported with.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a checkpoint, or a file of python -m retinanet.export")
    try:
        session = session_of(path, device_name)
        texts = session.get_modelmeta().custom_metadata_map
        facts = {name.removeprefix(KEY): json.loads(text) for name, text in texts.items() if name.startswith(KEY)}
        trained = Trained(**{name: facts[name] for name in Trained._fields if name != "threshold"})
        own_threshold = float(facts["least_score"])
        trained = trained._replace(threshold=max(saved_threshold(float(facts["threshold"])), own_threshold))
    except UserError:
        raise
    except Exception as fault:  # damaged bytes make onnxruntime raise almost anything
        raise UserError(
            f"{path}: not an ONNX file of python -m retinanet.export, or damaged ({str(fault) or repr(fault):.200}). "
            "Export the checkpoint again."
        ) from fault
    threshold = trained.threshold if threshold is None else threshold
    if np.float32(threshold) < np.float32(own_threshold):
        raise UserError(
            f"--threshold {threshold_text(threshold)} is below {threshold_text(own_threshold)}, at which {path} was "
            "exported and below which it finds nothing. Export it with a lower --threshold"
        )
    return ReadyNetwork(look_of_session(session), trained, torch.device("cpu"), threshold)


def session_of(file: Path | bytes, device_name: str) -> Any:
    """onnxruntime with a file, or the bytes of one. UserError where it isn't installed or lacks the device."""
    library = _onnxruntime()
    return library.InferenceSession(file, providers=_providers(library, device_name))


def look_of_session(session: Any) -> Look:
    def look(images: Tensor, sizes: Tensor) -> Candidates:
        feed = {"images": images.contiguous().numpy(), "sizes": sizes.numpy()}
        return Candidates(*map(torch.from_numpy, session.run(["boxes", "scores", "labels"], feed)))

    return look


def _providers(library: ModuleType, device_name: str) -> list[str]:
    """What runs it: the GPU where it is asked for, or is there."""
    there = library.get_available_providers()
    has_gpu = "CUDAExecutionProvider" in there
    if device_name.startswith("cuda") and not has_gpu:
        raise UserError(f"--device {device_name}: this onnxruntime has no CUDA. Install onnxruntime-gpu, or give cpu")
    return ["CUDAExecutionProvider"] * (has_gpu and device_name != "cpu") + ["CPUExecutionProvider"]


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX files need onnxruntime. Install it with: pip install onnxruntime") from None
    onnxruntime.set_default_logger_severity(4)  # what goes wrong is said by us
    return onnxruntime

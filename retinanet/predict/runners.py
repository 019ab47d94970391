"""Runs exported files: ONNX files with onnxruntime, and OpenVINO files with OpenVINO."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.runtime.errors import UserError

ONNX, OPENVINO = ".onnx", ".xml"
GPU_PROVIDER = "CUDAExecutionProvider"  # onnxruntime's name
KEY = "retinanet"  # the prefix of metadata names in ONNX files, and the metadata's section in OpenVINO's rt_info


class Runner(NamedTuple):
    """Runs an exported file."""

    facts: dict[str, Any]  # the metadata
    outputs: frozenset[str]  # the names of its outputs
    run: Callable[[Sequence[str], Tensor, Tensor], list[Tensor]]  # returns the named outputs for images and sizes


def onnx_runner(file: Path | bytes, device_name: str) -> Runner:
    """Returns the runner of an ONNX file, given as a path or as bytes.

    Raises UserError if onnxruntime or the device is missing; a damaged file can make onnxruntime raise almost anything.
    """
    library = _onnxruntime()
    session = library.InferenceSession(file, providers=_providers(library, device_name))
    if device_name.startswith("cuda") and GPU_PROVIDER not in session.get_providers():
        raise UserError(f"--device {device_name}: onnxruntime can't use this GPU. Choose another, or use --device cpu")
    texts = session.get_modelmeta().custom_metadata_map
    prefix = f"{KEY}."
    facts = {name.removeprefix(prefix): json.loads(text) for name, text in texts.items() if name.startswith(prefix)}
    options = library.RunOptions()
    options.only_execute_path_to_fetches = True  # computes only the part of the graph that the outputs need

    def run(names: Sequence[str], images: Tensor, sizes: Tensor) -> list[Tensor]:
        feed = {"images": images.contiguous().numpy(), "sizes": sizes.numpy()}
        return [torch.from_numpy(output) for output in session.run(list(names), feed, options)]

    return Runner(facts, frozenset(output.name for output in session.get_outputs()), run)


def _providers(library: ModuleType, device_name: str) -> list[str | tuple[str, dict[str, int]]]:
    """Returns the execution providers for onnxruntime: a GPU, if available and not excluded, then the CPU."""
    available = library.get_available_providers()
    has_gpu = GPU_PROVIDER in available
    if device_name.startswith("cuda") and not has_gpu:
        raise UserError(
            f"--device {device_name}: this onnxruntime lacks CUDA. Install onnxruntime-gpu, or use --device cpu"
        )
    number = int(device_name.partition(":")[2] or 0)
    gpu = [(GPU_PROVIDER, {"device_id": number})] if has_gpu and device_name != "cpu" else []
    return [*gpu, "CPUExecutionProvider"]


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX files need onnxruntime. Install it with: pip install onnxruntime") from None
    onnxruntime.set_default_logger_severity(4)  # errors are reported as UserError
    return onnxruntime


def openvino_runner(file: Any, device_name: str, precision: torch.dtype = torch.float32) -> Runner:
    """Returns the runner of an OpenVINO file, given as a path, or of an openvino.Model.

    It runs on the CPU, and uses `precision` for the layers that aren't quantised. Raises UserError if OpenVINO is
    missing or can't use the device; for damaged files, OpenVINO raises RuntimeError.
    """
    library = openvino_library()
    if device_name.startswith("cuda"):
        raise UserError(f"--device {device_name}: OpenVINO files run on the CPU. Use --device cpu or auto.")
    core = library.Core()
    model = core.read_model(file) if isinstance(file, Path) else file
    outputs = {output.get_any_name(): output for output in model.outputs}
    lock = Lock()  # because threads may share a Detector, and a request serves one call at a time
    config = {"INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32"}

    @cache
    def compiled(names: tuple[str, ...]) -> Any:
        part = library.Model([outputs[name] for name in names], model.get_parameters())
        return core.compile_model(part, "CPU", config).create_infer_request()

    def run(names: Sequence[str], images: Tensor, sizes: Tensor) -> list[Tensor]:
        with lock:
            results = compiled(tuple(names)).infer([images.contiguous().numpy(), sizes.numpy()], share_inputs=True)
        return [torch.from_numpy(results[index]) for index in range(len(names))]

    facts = {name: json.loads(value) for name, value in model.get_rt_info([KEY]).value.items()}
    return Runner(facts, frozenset(outputs), run)


def openvino_library() -> ModuleType:
    """Returns the openvino package. Raises UserError if it is missing."""
    try:
        import openvino
    except ImportError:
        raise UserError("OpenVINO files need openvino. Install it with: pip install openvino") from None
    return openvino

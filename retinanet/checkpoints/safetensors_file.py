"""Reads safetensors files, and writes checkpoints as safetensors files, with a JSON description in the header."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from retinanet.runtime.errors import UserError
from retinanet.runtime.files import written_whole

SUFFIX = ".safetensors"
KEY = "retinanet"  # the header's entry for the description


def write_safetensors(content: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint's `content` atomically: `model` as tensors, and the rest, except for `ema`, in the header.

    A .json file next to `path` repeats the header's description. Raises OSError if writing fails, and UserError if the
    safetensors package is missing.
    """
    library = _safetensors()
    header = {name: value for name, value in content.items() if name not in ("model", "ema")}
    weights = {name: value.contiguous() for name, value in content["model"].items()}
    with written_whole(path, "wb") as file:
        file.write(library.save(weights, {KEY: json.dumps(header)}))
    with written_whole(path.with_suffix(".json")) as file:
        file.write(json.dumps(header, indent=1) + "\n")


def read_safetensors(path: Path, what: str) -> dict[str, Any]:
    """Returns the checkpoint in the file `path` or, if the file's header doesn't describe a checkpoint, its tensors.

    Raises UserError if the file or the package is missing, or the file is damaged. The message calls the expected
    content `what`.
    """
    library = _safetensors()
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length)).get("__metadata__", {})
        if KEY not in header:
            return dict(library.load_file(path, device="cpu"))
        content = json.loads(header[KEY])
        if not isinstance(content, dict):
            raise ValueError("its header is not a dict")
        return {**content, "model": library.load_file(path, device="cpu")}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Use the path of {what}.") from None
    except Exception as fault:  # damaged bytes make the reader raise almost anything
        raise UserError(f"{path}: not {what}, or damaged ({fault!r:.200}). Use another file.") from fault


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise UserError("safetensors is not installed. Install it with: pip install safetensors") from None
    return safetensors.torch

"""The output folder of a run: the record of what was run, and earlier runs moved out of the way."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from retinanet.errors import UserError
from retinanet.files import written_whole

RECORD = "run.json"
CHECKPOINTS = ("retinanet_epoch*.pt", "best.pt", "model_final.pt")
RUN_FILES = (RECORD, *CHECKPOINTS, *(f"{name}.part" for name in (RECORD, *CHECKPOINTS)))
PACKAGES = ("torchvision", "pycocotools", "numpy", "pillow")


def prepare_folder(folder: Path) -> tuple[Path, int] | None:
    """Make `folder`, and move the files of an earlier run in it to before_{k}/, k the first that is free.

    Returns that folder and the number of files moved, or None where there was no run. UserError where the folder
    can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(path for pattern in RUN_FILES for path in folder.glob(pattern) if path.is_file())
        if not earlier:
            return None
        number = 1
        while (folder / f"before_{number}").exists():
            number += 1
        before = folder / f"before_{number}"
        before.mkdir()
        for path in earlier:
            path.rename(before / path.name)
    except OSError as fault:
        raise UserError(
            f"{fault.filename}: the output folder can't be written to ({fault.strerror}). Choose another --output_path."
        ) from None
    return before, len(earlier)


def write_record(folder: Path, settings: dict[str, Any], class_names: list[str], device: torch.device) -> None:
    """Write run.json: the command, every setting, versions, git commit and class names."""
    record = {
        "command": [sys.executable, *sys.argv],
        "settings": settings,
        "class_names": class_names,
        "git_commit": git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in PACKAGES},
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
    }
    try:
        with written_whole(folder / RECORD) as file:
            file.write(json.dumps(record, indent=2) + "\n")
    except OSError as fault:
        raise UserError(f"{folder / RECORD}: can't be written ({fault.strerror}). Is the disk full?") from None


def git_commit() -> str | None:
    """The commit of this code, with "-dirty" where files differ from it; None outside of a git checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()

"""Describes what made a file: the command, the code, the machine and the time."""

import hashlib
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from retinanet import __version__

PACKAGES = ("torchvision", "pycocotools", "hotcoco", "numpy", "pillow")
MOST_BYTES_OF_DIFF = 100_000  # of a longer diff, only the hash is kept
CODE = Path(__file__).parents[2]


def provenance() -> dict[str, Any]:
    """Returns the command, the git commit, any uncommitted changes, the versions and the host, as plain data."""
    return {
        "command": [sys.executable, *sys.argv],
        "git_commit": git_commit(),
        "uncommitted": uncommitted_changes(),
        "versions": {
            "python": platform.python_version(),
            "retinanet": __version__,
            "torch": torch.__version__,
            **{name: _version(name) for name in PACKAGES},
        },
        "host": platform.node(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def time_now() -> str:
    """Returns the local time in ISO 8601, with its offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def name_of_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def git_commit() -> str | None:
    """Returns the commit of this code, with "-dirty" if files differ from it; None outside of a git checkout."""
    answer = _git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    return None if answer is None else answer.decode().strip()


def uncommitted_changes(folder: Path = CODE) -> dict[str, Any] | None:
    """Returns the changed files below `folder`, the hash of their diff against the commit, and the diff if it is small.

    Untracked files are left out. Returns None if nothing has changed, or if `folder` isn't in a git checkout.
    """
    options = ("diff", "HEAD", "--relative", "--no-color", "--no-ext-diff", "--no-textconv")
    diff = _git(*options, folder=folder)
    if not diff:
        return None
    names = _git(*options, "--name-only", "-z", folder=folder) or b""
    changes: dict[str, Any] = {
        "files": names.decode(errors="replace").rstrip("\0").split("\0"),
        "sha256": hashlib.sha256(diff).hexdigest(),
    }
    return changes | ({"diff": diff.decode(errors="replace")} if len(diff) <= MOST_BYTES_OF_DIFF else {})


def _git(*words: str, folder: Path = CODE) -> bytes | None:
    """Runs git in `folder` and returns its output; None if git is missing or fails."""
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None

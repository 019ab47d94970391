"""The output folder of a run: one run's at a time, its record, and earlier runs moved out of the way."""

import errno
import fcntl
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch

from retinanet.coco.json_values import read_json
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import remove_unfinished, written_whole

RECORD = "run.json"
EVALUATIONS = "ap_by_epoch"
LOCK = ".lock"
DIVERGENCE = "divergence"  # the folder of the records of skipped steps
BEST = "best.pt"
RUN_FILES = (RECORD, "last.pt", "previous.pt", "retinanet_epoch*.pt", BEST, "model_final.pt", DIVERGENCE)
TRACKED = ("trackers.json", "tensorboard", "report")  # of --track
PACKAGES = ("torchvision", "pycocotools", "hotcoco", "numpy", "pillow")


def open_folder(folder: Path) -> IO[str]:
    """Make `folder`, and keep other runs out of it for as long as the file that this gives is open.

    What a killed write has left is removed. UserError where the folder can't be written to or another run is in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "w", encoding="utf-8")  # noqa: SIM115 - open for as long as the run
        try:
            # This kind belongs to the process: its workers don't inherit it, and the system frees it with the process.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"{folder}: another training is writing there. Wait until it ends, or choose another --output_path."
                ) from None
            # A file system without locks: nothing keeps another run out.
        for pattern in RUN_FILES:
            remove_unfinished(folder, pattern)
    except OSError as error:
        raise _cannot_write(error) from None
    return lock


def _cannot_write(error: OSError) -> UserError:
    return UserError(
        f"{error.filename}: the output folder can't be written to ({error.strerror}). Choose another --output_path."
    )


def move_earlier_run(folder: Path) -> tuple[Path, int] | None:
    """Move the files of an earlier run in `folder` to before_{k}/, k the first that is free.

    Returns that folder and the number of files moved, or None where there was no run. UserError where the folder
    can't be written to.
    """
    try:
        earlier = sorted(path for pattern in (*RUN_FILES, *TRACKED) for path in folder.glob(pattern))
        if not earlier:
            return None
        before = free_folder(folder)
        before.mkdir()
        for path in earlier:
            path.rename(before / path.name)
    except OSError as error:
        raise _cannot_write(error) from None
    return before, len(earlier)


def free_folder(folder: Path) -> Path:
    """Returns the first of before_1, before_2, ... that `folder` lacks: a place for an earlier run's files."""
    number = 1
    while (folder / f"before_{number}").exists():
        number += 1
    return folder / f"before_{number}"


def write_record(
    folder: Path, settings: dict[str, Any], class_names: list[str], device: torch.device, resumed: str | None = None
) -> None:
    """Write run.json: the command, every setting, versions, git commit and class names.

    For a resumed run `resumed` says from what; the record of its start is then kept below "started".
    """
    path = folder / RECORD
    record: dict[str, Any] = {
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
    if resumed:
        earlier = read_json(path) if path.exists() else {}
        if EVALUATIONS in earlier:
            record[EVALUATIONS] = earlier.pop(EVALUATIONS)
        record |= {"resumed": [*earlier.get("resumed", []), resumed], "started": earlier.get("started", earlier)}
    _write_record(path, record)


def write_evaluations(folder: Path, ap_by_epoch: dict[int, float]) -> None:
    """Add the AP of each evaluation to run.json. UserError where that fails; the file is then as it was."""
    record = read_json(folder / RECORD) if (folder / RECORD).exists() else {}
    _write_record(folder / RECORD, record | {EVALUATIONS: ap_by_epoch})


def read_evaluations(folder: Path) -> dict[int, float]:
    """The AP by epoch in the folder's run.json; empty where there is none, or none that makes sense."""
    try:
        found = read_json(folder / RECORD)[EVALUATIONS]
        return {int(epoch): float(ap) for epoch, ap in found.items()}
    except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return {}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        with written_whole(path) as file:
            file.write(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}). Is the disk full?") from None


def write_skipped(folder: Path, record: dict[str, Any]) -> Path:
    """Write the `record` of a skipped step to divergence/ in `folder`; returns the file."""
    path = folder / DIVERGENCE / f"epoch{record['epoch']}_iteration{record['iteration']}.json"
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as file:
        file.write(json.dumps(record, indent=2) + "\n")
    return path


def git_commit() -> str | None:
    """The commit of this code, with "-dirty" where files differ from it; None outside of a git checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()

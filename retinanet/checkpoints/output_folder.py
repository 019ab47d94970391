"""Manages a run's output folder: locks the folder, writes the run's record, and moves earlier runs out of the way."""

import errno
import fcntl
import json
from pathlib import Path
from typing import IO, Any

from retinanet.checkpoints.checkpoint import saved_epoch
from retinanet.checkpoints.provenance import provenance, time_now
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import remove_unfinished, written_whole
from retinanet.runtime.json_files import read_json
from retinanet.settings.shared import BEST, FINAL
from retinanet.settings.train import RECORD

EVALUATIONS = "ap_by_epoch"
LOCK = ".lock"
DIVERGENCE = "divergence"  # the subfolder for the records of skipped steps
RUN_FILES = (RECORD, "last.pt", "previous.pt", "retinanet_epoch*.pt", BEST, FINAL, DIVERGENCE)
TRACKED = ("trackers.json", "tensorboard", "report")  # written by --track


def open_folder(folder: Path) -> IO[str]:
    """Creates `folder`, and locks it against other runs for as long as the returned file is open.

    Removes unfinished files of killed runs. Raises UserError if the folder isn't writable or another run is using it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "w", encoding="utf-8")  # noqa: SIM115 - stays open until the run ends
        try:
            # This lock belongs to the process: its workers don't inherit the lock, which ends with the process.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"{folder}: another run is writing there. Wait until it ends, or choose another --output_path."
                ) from None
            # The file system doesn't support locks, so other runs can't be kept out.
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
    """Moves the files of an earlier run in `folder` to before_{k}/, where k is the first free number.

    Returns the new folder and the number of files and subfolders moved, or None if there was no earlier run. Raises
    UserError if `folder` isn't writable.
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
    """Returns the folder for an earlier run: the first of before_1, before_2, ... that doesn't exist in `folder`."""
    number = 1
    while (folder / f"before_{number}").exists():
        number += 1
    return folder / f"before_{number}"


def write_record(folder: Path, run: dict[str, Any], resumed: str | None = None) -> None:
    """Writes run.json: the description of the `run` (settings, classes, data, devices) and its provenance.

    For a resumed run, `resumed` says at what point it continues, and the record of its start is kept under "started".
    """
    path = folder / RECORD
    record = run | provenance() | {"start_time": time_now()}
    if resumed:
        earlier = read_json(path) if path.exists() else {}
        if EVALUATIONS in earlier:
            record[EVALUATIONS] = earlier.pop(EVALUATIONS)
        record |= {"resumed": [*earlier.get("resumed", []), resumed], "started": earlier.get("started", earlier)}
    _write_record(path, record)


def write_end(folder: Path, how: str) -> None:
    """Records in run.json when and `how` the run ended. Raises UserError, without changing the file, if that fails."""
    _add_to_record(folder, {"end_time": time_now(), "ended": how})


def write_evaluations(folder: Path, ap_by_epoch: dict[int, float]) -> None:
    """Adds the AP of each evaluation to run.json. If that fails, raises UserError and leaves the file unchanged."""
    _add_to_record(folder, {EVALUATIONS: ap_by_epoch})


def read_evaluations(folder: Path) -> dict[int, float]:
    """Returns the AP by epoch from the run.json in `folder`; empty if the file is missing or broken."""
    try:
        ap_by_epoch = read_json(folder / RECORD)[EVALUATIONS]
        return {int(epoch): float(ap) for epoch, ap in ap_by_epoch.items()}
    except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return {}


def best_and_final_line(path: Path) -> str | None:
    """Returns a line with the APs of best.pt and model_final.pt; None if `path` is neither, or one is unknown."""
    aps = read_evaluations(path.parent)
    if not aps or path.name not in (BEST, FINAL):
        return None
    final = saved_epoch(path.with_name(FINAL))  # None if the run hasn't ended yet; a resumed run may have ended before
    if final not in aps:
        return None
    epochs = {BEST: max(aps, key=lambda epoch: (aps[epoch], -epoch)), FINAL: final}
    this, other = (
        f"{path.with_name(name)} AP {aps[epochs[name]]:.3f} after epoch {epochs[name]}"
        for name in sorted(epochs, key=lambda name: name != path.name)
    )
    return f"On the run's val set: {this}; {other}"


def _add_to_record(folder: Path, content: dict[str, Any]) -> None:
    record = read_json(folder / RECORD) if (folder / RECORD).exists() else {}
    _write_record(folder / RECORD, record | content)


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        with written_whole(path) as file:
            file.write(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}). Make room on the disk.") from None


def write_skipped(folder: Path, record: dict[str, Any]) -> Path:
    """Writes the `record` of a skipped step to divergence/ in `folder`, and returns the path."""
    path = folder / DIVERGENCE / f"epoch{record['epoch']}_iteration{record['iteration']}.json"
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as file:
        file.write(json.dumps(record, indent=2) + "\n")
    return path

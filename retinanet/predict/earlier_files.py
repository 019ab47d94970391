"""Finds the files that an earlier run of predict wrote, and moves them out of the way."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinanet.checkpoints.output_folder import free_folder
from retinanet.coco.annotation_entries import leaves_folder
from retinanet.runtime.errors import UserError, file_error_explained

ROWS_JSON, ROWS_CSV = "predictions.json", "predictions.csv"
RECORD = "predicted_files.jsonl"  # one JSON string per line: a file of the run, relative to the folder


def record_line(path: Path, folder: Path) -> str:
    """Returns the line of the record for `path`, a file in `folder`."""
    return json.dumps(path.relative_to(folder).as_posix()) + "\n"


def add_to_record(folder: Path, part: Path) -> None:
    """Adds the files below `part`, a folder in `folder`, to the record."""
    files = [Path(place) / name for place, folders, names in os.walk(part) for name in sorted(folders + names)]
    with open(folder / RECORD, "a", encoding="utf-8") as record:
        record.writelines(record_line(path, folder) for path in files if path.is_symlink() or path.is_file())


def earlier_files(folder: Path) -> list[Path]:
    """Returns the files in `folder` that an earlier run wrote, except its record.

    Runs of earlier versions left no record, so only their predictions.json and predictions.csv are known.
    """
    record = folder / RECORD
    names = {ROWS_JSON, ROWS_CSV}
    if record.is_file():
        with file_error_explained(record, "can't be read", "Choose another --output_path."):
            names |= set(_names_in(record.read_text(encoding="utf-8", errors="replace").splitlines()))
    return sorted(path for path in (folder / name for name in names) if path.is_file() or path.is_symlink())


def _names_in(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:  # a full disk or a power cut truncated the line; the file that it names is incomplete too
            continue
        if isinstance(name, str) and not leaves_folder(name):
            yield name


def require_no_source(earlier: Sequence[Path], sources: Iterable[Path]) -> None:
    """Raises UserError if a source is one of the `earlier` files, which are moved before any source is read."""
    identities = {_identity(path.lstat()) for path in earlier}  # of the links themselves: their targets stay
    for path in sources if identities else ():
        if path.exists() and not identities.isdisjoint((_identity(path.stat()), _identity(path.lstat()))):
            raise UserError(
                f"{path}: is a SOURCE, but an earlier run wrote it, and it would be moved before it is read. Choose "
                "another --output_path, or leave it out."
            )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def move_earlier_files(folder: Path, earlier: Sequence[Path]) -> Path:
    """Moves the `earlier` files and their record to the first free folder before_{k}/ in `folder`; returns that folder.

    Folders that become empty are removed. If a file can't be moved, all files are moved back, and UserError is raised.
    """
    moved: list[tuple[Path, Path]] = []
    record = folder / RECORD
    with file_error_explained(folder, "an earlier run's files can't be moved", "Choose another --output_path."):
        before = free_folder(folder)
        before.mkdir()
        try:
            # The record moves last: after a power cut, it still tells the next run which files to move.
            for path in [*earlier, *([record] if record.is_file() else [])]:
                place = before / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                moved.append((path, place))
                path.rename(place)
        except BaseException:
            for path, place in reversed(moved):
                if os.path.lexists(place):
                    place.rename(path)
            _remove_empty({before, *(parent for _, place in moved for parent in _parents_below(place, folder))})
            raise
        _remove_empty({parent for path, _ in moved for parent in _parents_below(path, folder)})
    return before


def _parents_below(path: Path, folder: Path) -> list[Path]:
    return list(path.parents[: len(path.relative_to(folder).parts) - 1])


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()

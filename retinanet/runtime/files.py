"""Files written so that no reader ever sees half of one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from retinanet.runtime.errors import UserError

UNFINISHED = ".part"  # what the name of a file that is still being written ends with
WRITER = "[0-9a-f]" * 8  # before that: a name that each writer draws for himself


@contextmanager
def written_whole(path: str | Path, mode: str = "w", *, previous: Path | None = None) -> Iterator[IO[Any]]:
    """A file to write to, which becomes `path` once all is written and on the disk.

    It lies beside its place until then: a kill, a full disk or a loss of power leaves the old file or the new one, and
    of several writers at a time each has a file of its own and the last one stays. With `previous` the old file is kept
    under that name. Raises OSError.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    # A new file: what is there already is neither emptied nor, where it is a link, followed.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(beside, path)
        _flush_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what killed writers of the files called like `pattern` have left in `folder`. Raises OSError."""
    for ending in (f".{WRITER}{UNFINISHED}", UNFINISHED):  # the second: of earlier versions
        for path in folder.glob(pattern + ending):
            path.unlink()


def require_writable(path: Path) -> None:
    """UserError where no file could be written at `path`, whose folders may be still to make; writes nothing."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise UserError(f"{path}: is a folder, where a file is to be written. Choose another place.")
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{path}: {there} is no folder that can be written to. Choose another place.")


def _flush_folder(folder: Path) -> None:
    """Bring the folder's list of names to the disk: the names are not there yet when the files are."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

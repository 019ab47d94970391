"""Writes files atomically, and checks disk space and write access."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from retinanet.runtime.errors import UserError

UNFINISHED = ".part"  # the suffix of a file that is still being written
LONGEST_NAME = 255  # bytes
WRITER = "[0-9a-f]" * 8  # the pattern of the random characters before the suffix, which differ for every writer


@contextmanager
def written_whole(path: str | Path, mode: str = "w", *, previous: Path | None = None) -> Iterator[IO[Any]]:
    """Yields a file to write to, which atomically becomes `path` once it is complete and flushed to disk.

    Until then, the file has another name in the same folder, so that after a crash, a full disk or a power cut, `path`
    is either the old file or the new one. Concurrent writers don't disturb each other, and the last one wins. With
    `previous`, the old file is first moved to that name, so for a moment there is no file at `path`. Raises OSError if
    writing fails.
    """
    path = Path(path)
    ending = f".{secrets.token_hex(4)}{UNFINISHED}"
    start = os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - len(ending)])  # a name may be as long as is allowed
    beside = path.with_name(start + ending)
    # Create a new file: never truncate an existing one or follow a link.
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
    """Removes unfinished copies of files matching `pattern`, left in `folder` by killed processes. Raises OSError."""
    for ending in (f".{WRITER}{UNFINISHED}", UNFINISHED):  # earlier versions used the second ending
        for path in folder.glob(pattern + ending):
            path.unlink()


def free_space(folder: Path) -> int:
    """Returns the number of bytes that this user can still write to the disk of `folder`."""
    return shutil.disk_usage(folder).free


def size_text(num_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"


def size_on_disk(path: Path) -> int:
    """Returns the number of bytes in a file, or in all files of a folder and its subfolders."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def require_writable(path: Path) -> None:
    """Raises UserError if no file can be written at `path`, whose folders need not exist yet. Writes nothing."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise UserError(f"{path}: is a folder, but a file must be written there. Choose another path.")
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{path}: {existing} is not a writable folder. Choose another path.")


def _flush_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, because flushing a file doesn't flush its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

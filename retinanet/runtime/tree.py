"""Walks folders, finds files by name, and records for each file whether it was read and, if not, why not."""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple

HIDDEN, BROKEN = "hidden", "linking nowhere"
LOOP, SPECIAL = "linking back to a folder around it", "neither file nor folder"
UNREADABLE = "in a folder that can't be listed"
MOST_FOLDERS = 10
MACOSX = "__MACOSX"  # resource files in archives made on a Mac


class Entry(NamedTuple):
    path: Path
    reason: str = ""  # why the file can't be read, or "" for a regular file


class Account(NamedTuple):
    """Holds the number of files that were read, and the files that weren't, grouped by reason."""

    num_read: int
    left: dict[str, list[Path]]

    def line(self, root: Path) -> str:
        """Returns a line that counts files read and not read, with an example (relative to `root`) for each reason."""
        num_left = sum(map(len, self.left.values()))
        if not num_left:
            return f"Files: {self.num_read} read, none left out"
        reasons = [f"{len(paths)} {reason} ({_below(paths[0], root)})" for reason, paths in sorted(self.left.items())]
        return f"Files: {self.num_read} read, {num_left} not read: {', '.join(reasons)}"


class Tree:
    """Keeps track of the files in the folders that a command walks.

    Links to folders are followed, unless they lead back to a folder that contains them. Hidden files and folders, and
    __MACOSX, are left out.
    """

    def __init__(self, most_in_folder: int | None = None) -> None:
        # A limit per folder, for a first look; for all folders together, the limit is MOST_FOLDERS times as high.
        self._most_in_folder = most_in_folder
        self._walked: dict[Path, list[Path]] = {}
        self._entries: dict[str, Entry] = {}
        self._read: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._names: dict[str, dict[str, list[str]]] = {}
        self._real_folders: dict[str, str] = {}

    def files(self, folder: Path) -> list[Path]:
        """Returns the regular files below `folder`, sorted by name in each folder."""
        if folder not in self._walked:
            most = None if self._most_in_folder is None else MOST_FOLDERS * self._most_in_folder
            entries = list(islice(walk(folder, self._most_in_folder), most))
            for entry in entries:
                self._entries.setdefault(self._key(entry.path), entry)
            self._walked[folder] = [path for path, reason in entries if not reason]
        return self._walked[folder]

    def files_in(self, folder: Path) -> list[Path]:
        """Returns the regular files directly in `folder`, sorted by name."""
        entries = list(takewhile(lambda entry: entry.path.parent == folder, walk(folder)))
        for entry in entries:
            self._entries.setdefault(self._key(entry.path), entry)
        return [path for path, reason in entries if not reason]

    def find(self, path: Path) -> Path | None:
        """Returns `path` if it exists, else the one path that differs only in Unicode form or, failing that, case."""
        if os.path.exists(path):
            return path
        if path.parent == path:
            return None
        folder = self.find(path.parent)
        if folder is None or path.name == "..":
            return None
        names = self._names_in(folder).get(folded(path.name), [])
        same = [name for name in names if _composed(name) == _composed(path.name)] or names
        return folder / same[0] if len(same) == 1 else None

    def read(self, path: Path) -> None:
        """Notes that the file `path` is read, unless `leave` was called for it."""
        key = self._key(path)
        if key in self._reasons:
            return
        self._read.add(key)
        self._entries.setdefault(key, Entry(path))

    def leave(self, path: Path, reason: str) -> None:
        """Notes why the file `path` isn't read."""
        key = self._key(path)
        self._reasons[key] = reason
        self._read.discard(key)

    def is_read(self, path: Path) -> bool:
        return self._key(path) in self._read

    def is_explained(self, path: Path) -> bool:
        """Returns True if the file `path` was read, or if a reason for not reading it was recorded."""
        return self.is_read(path) or self._key(path) in self._reasons

    def account(self, reason_of: Callable[[Path], str]) -> Account:
        """Returns an account of all files found or read; `reason_of` explains unread files that have no reason yet."""
        left: dict[str, list[Path]] = {}
        for key, (path, reason) in self._entries.items():
            if key not in self._read:
                left.setdefault(reason or self._reasons.get(key) or reason_of(path), []).append(path)
        return Account(len(self._entries.keys() & self._read), left)

    def _key(self, path: Path) -> str:
        """Returns a key for `path`: the path with all links resolved, except in its last part."""
        folder = str(path.parent)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], path.name)

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        key = str(folder)
        if key not in self._names:
            names: dict[str, list[str]] = {}
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                names.setdefault(folded(name), []).append(name)
            self._names[key] = names
        return self._names[key]


def walk(folder: Path, most_in_folder: int | None = None) -> Iterator[Entry]:
    """Yields every file below `folder`; the files of each folder come before the files of its subfolders."""
    waiting = [(folder, frozenset(_with_parents(os.path.realpath(folder))), "")]
    while waiting:
        place, above, reason = waiting.pop()
        try:
            with os.scandir(place) as scan:
                names = sorted(entry.name for entry in islice(scan, most_in_folder))
        except OSError:
            yield Entry(place, UNREADABLE)
            continue
        folders = []
        for name in names:
            path = place / name
            fault = reason or (HIDDEN if name.startswith(".") or name == MACOSX else "")
            try:
                mode = os.stat(path).st_mode
            except OSError:
                yield Entry(path, fault or BROKEN)
                continue
            if stat.S_ISDIR(mode):
                real = os.path.realpath(path)
                if real in above:
                    yield Entry(path, fault or LOOP)
                else:
                    folders.append((path, above.union(_with_parents(real)), fault))
            else:
                yield Entry(path, fault or ("" if stat.S_ISREG(mode) else SPECIAL))
        waiting += reversed(folders)


def _with_parents(path: str) -> list[str]:
    return [path, *map(str, Path(path).parents)]


def folded(name: str) -> str:
    """Returns a form of `name` that doesn't depend on its case or Unicode normalisation."""
    return _composed(_composed(name).casefold())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

"""Explains why a file is missing: a broken link, or a name that differs in ways that are hard to see."""

import os
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote


def why_missing(path: Path) -> str:
    """Returns a sentence, with a leading space, on why the file `path` may be missing, or "" if nothing explains it."""
    try:
        return _why_missing(path)
    except OSError as error:  # the name is too long, or a folder can't be read
        return f" It can't be looked for ({error.strerror})."


def _why_missing(path: Path) -> str:
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return f" {place} is a link to {os.readlink(place)}, which can't be reached."
    similar = _similar(path)
    if similar is None or similar == path:
        return ""
    return f" {similar} is there: the names differ {_difference(str(path), str(similar))}. Make them equal."


def _similar(path: Path) -> Path | None:
    """Returns the only path equal to `path` apart from case, Unicode form, percent-encoding and spaces around names."""
    if path.exists():
        return path
    folder = _similar(path.parent)
    if folder is None or not folder.is_dir():
        return None
    names = _names(folder, folder.stat().st_mtime_ns).get(_key(path.name), [])
    return folder / names[0] if len(names) == 1 else None


@lru_cache(4)  # a folder may hold millions of files, and thousands may be missing
def _names(folder: Path, changed: int) -> dict[str, list[str]]:
    """Returns the names in `folder`, grouped by _key; `changed`, the folder's mtime, keeps the cache up to date."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(_key(name), []).append(name)
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).strip().casefold()


def _difference(path: str, similar: str) -> str:
    path, similar = (unicodedata.normalize("NFC", text) for text in (path, similar))
    if path == similar:
        return "in their Unicode form, which stores an accent with its letter or after it"
    if path.casefold() == similar.casefold():
        return "in capitals and small letters"
    return "in spaces or in characters written as %20"

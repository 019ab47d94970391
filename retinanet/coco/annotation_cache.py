"""Caches parsed annotation files in the user's cache folder, so that each file is parsed only once."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.coco.annotations import Annotations, read_annotations
from retinanet.runtime.console import say
from retinanet.runtime.files import written_whole

FORMAT = 3  # increase when the checks or the arrays change, so that older caches are rebuilt
ARRAYS = ("image_ids", "file_names", "sizes", "first", "boxes", "labels", "crowds", "areas")
KEPT_SECONDS = 90 * 24 * 3600  # a cache file is removed this long after its last use


def load_annotations(path: str | Path) -> Annotations:
    """Reads and checks the COCO annotation file `path`, or loads its checked contents from the cache.

    Raises UserError if the file is missing or invalid; the message names the mistake and its fix.
    """
    path = Path(path)
    digest = digest_of(path)
    folder = cache_folder()
    entry = folder and folder / f"{digest}.npz"
    annotations = _read(entry, path) if entry and digest else None
    if annotations is None:
        annotations = read_annotations(path)
        if digest and digest == digest_of(path):  # the file did not change while it was read
            _write(annotations, entry)
    return annotations._replace(fingerprint=digest)


def cache_folder() -> Path | None:
    """Returns the cache folder, which may not exist yet; None if neither XDG_CACHE_HOME nor HOME is set."""
    root, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    if root:
        return Path(root) / "retinanet"
    return Path(home) / ".cache" / "retinanet" if home else None


def digest_of(path: Path) -> str:
    """Returns the SHA-256 digest of the file, or "" if the file can't be read (read_annotations reports the error)."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _read(entry: Path, path: Path) -> Annotations | None:
    """Returns the annotations of `path` from the cache file `entry`; None if it is missing, damaged or outdated."""
    content = read_entry(entry)
    try:
        if content is None or content["format"] != FORMAT:
            return None
        return Annotations(
            path,
            class_names=json.loads(str(content["class_names"])),
            category_ids=content["category_ids"].tolist(),
            **{name: content[name] for name in ARRAYS},
        )
    except (KeyError, ValueError):  # damaged
        return None


def _write(annotations: Annotations, entry: Path | None) -> None:
    content = {
        "format": np.array(FORMAT),
        "class_names": np.array(json.dumps(annotations.class_names)),
        "category_ids": np.array(annotations.category_ids, np.int64),
    }
    write_entry(entry, content | {name: getattr(annotations, name) for name in ARRAYS})


def read_entry(entry: Path) -> dict[str, Any] | None:
    """Returns the arrays in the cache file `entry`, and records its use; None if the file is missing or damaged."""
    try:
        with np.load(entry, allow_pickle=False) as file:
            content = dict(file)
    except Exception:  # a damaged cache can make zipfile or NumPy raise anything
        return None
    with contextlib.suppress(OSError):  # the folder may be read-only
        os.utime(entry)
    return content


def write_entry(entry: Path | None, content: Mapping[str, Any]) -> None:
    """Writes arrays to the cache file `entry`, and removes files that haven't been used for a long time.

    If there is no cache folder, or it isn't writable, says so once.
    """
    if entry is None:
        _say_once("there is no HOME and no XDG_CACHE_HOME")
        return
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_whole(entry, "wb") as file:
            np.savez(file, **content)
    except OSError as error:
        _say_once(f"{entry.parent} can't be written ({error.strerror})")
    for old in entry.parent.glob("*.npz*"):  # includes unfinished files that killed processes left behind
        with contextlib.suppress(OSError):  # another process may have removed the file
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink()


@cache
def _say_once(reason: str) -> None:
    say(f"No annotation cache, so each start parses the annotations again: {reason}")

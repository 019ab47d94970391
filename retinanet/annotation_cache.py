"""Annotation files parsed once: their arrays are kept beside them for the next start."""

import hashlib
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from retinanet.annotations import Annotations, read_annotations
from retinanet.files import written_whole
from retinanet.packed_names import PackedNames

FORMAT = "retinanet annotations 2"  # to change with the checks or the arrays: older caches are then made anew
ARRAYS = ("image_ids", "sizes", "first", "boxes", "labels", "crowds", "areas")


def load_annotations(path: str | Path) -> Annotations:
    """Read and check the COCO annotation file `path`, or take what an earlier start has read of the same file.

    UserError names what is wrong with it and the fix.
    """
    path = Path(path)
    key = _key(path)
    annotations = _read(path, key) if key else None
    if annotations is None:
        annotations = read_annotations(path)
        if key and key == _key(path):  # it was not changed meanwhile
            _write(annotations, path, key)
    return annotations._replace(fingerprint=key.split(" ")[-1])


def cache_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.cache.npz")


def _key(path: Path) -> str:
    """What tells this content from any other: format, size, time of change and hash; empty where it can't be read.

    Size and time alone would miss a file that was exchanged for another of its size and time, as archives unpack them.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
    except OSError:  # read_annotations says it better
        return ""
    return f"{FORMAT} {status.st_size} {status.st_mtime_ns} {digest}"


def _read(path: Path, key: str) -> Annotations | None:
    """The cached annotations of `path`; None where there are none, stale or broken ones."""
    try:
        with np.load(cache_path(path)) as file:  # without pickle: it holds no code
            if str(file["key"]) != key:
                return None
            return Annotations(
                path=path,
                class_names=json.loads(str(file["class_names"])),
                category_ids=file["category_ids"].tolist(),
                file_names=PackedNames(file["name_text"], file["name_ends"]),
                **{name: file[name] for name in ARRAYS},
            )
    # Whatever bytes it consists of, a cache is no reason to stop; each of its members has a checksum.
    except (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return None


def _write(annotations: Annotations, path: Path, key: str) -> None:
    try:
        with written_whole(cache_path(path), "wb") as file:
            np.savez(
                file,
                key=np.array(key),
                class_names=np.array(json.dumps(annotations.class_names)),
                category_ids=np.array(annotations.category_ids, np.int64),
                name_text=annotations.file_names.text,
                name_ends=annotations.file_names.ends,
                **{name: getattr(annotations, name) for name in ARRAYS},
            )
    except OSError:  # a read-only folder or a full disk: then the next start parses the file again
        pass

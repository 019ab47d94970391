"""Annotation files parsed once: their arrays are kept beside them for the next start.

A cache may come with a stranger's data, so it is trusted no more than the annotation file and passes the same checks.
"""

import hashlib
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.coco.annotation_arrays import DTYPES, are_sound
from retinanet.coco.annotations import Annotations, read_annotations, require_pixels
from retinanet.coco.packed_names import PackedNames
from retinanet.runtime.archives import require_stored
from retinanet.runtime.files import written_whole

CACHE_FORMAT = "retinanet annotations 2"  # change it with the checks or the arrays, so that older caches are rebuilt
# No array is larger than the annotation file, where a box takes 48 letters or more. Class names are the exception: a
# letter of 4 bytes is stored as 12 letters of 4 bytes each.
MOST_NAME_BYTES = 12


def load_annotations(path: str | Path) -> Annotations:
    """Read and check the COCO annotation file `path`, or its cache from an earlier start.

    UserError names a mistake and its fix.
    """
    path = Path(path)
    key = _key(path)
    annotations = _read(path, key) if key else None
    if annotations is None:
        annotations = read_annotations(path)
        if key and key == _key(path):  # the file did not change while it was read
            _write(annotations, path, key)
    return annotations._replace(fingerprint=key.split(" ")[-1])


def cache_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.cache.npz")


def _key(path: Path) -> str:
    """Format, size, modification time and hash of the file; empty if it can't be read.

    Size and time alone would miss a replacement of the same size and time, as archives unpack them.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
    except OSError:  # read_annotations gives the better message
        return ""
    return f"{CACHE_FORMAT} {status.st_size} {status.st_mtime_ns} {digest}"


def _read(path: Path, key: str) -> Annotations | None:
    """The cached annotations of `path`; None if the cache is missing, stale, broken or forged."""
    cache = cache_path(path)
    if not cache.is_file():  # opening a pipe would never return
        return None
    try:
        with zipfile.ZipFile(cache) as archive:
            require_stored(archive, cache.stat().st_size)
            limit = path.stat().st_size + 1000
            if _read_text(archive, "key", 1000) != key:
                return None
            arrays: dict[str, Any] = {name: _read_array(archive, name, dtype, limit) for name, dtype in DTYPES.items()}
            annotations = Annotations(
                path=path,
                class_names=json.loads(_read_text(archive, "class_names", MOST_NAME_BYTES * limit)),
                category_ids=_read_array(archive, "category_ids", np.dtype(np.int64), limit).tolist(),
                file_names=PackedNames(
                    _read_array(archive, "name_text", np.dtype(np.uint8), limit),
                    _read_array(archive, "name_ends", np.dtype(np.int64), limit),
                ),
                **arrays,
            )
            if not are_sound(annotations):
                return None
            require_pixels(annotations)
            return annotations
    except Exception:  # bad bytes make zipfile, NumPy and json raise anything; a cache is no reason to stop
        return None


def _read_text(archive: zipfile.ZipFile, name: str, limit: int) -> str:
    return str(_read_array(archive, name, None, limit))


def _read_array(archive: zipfile.ZipFile, name: str, dtype: np.dtype | None, limit: int) -> np.ndarray:
    """The array `name` of `archive`: of `dtype`, or a text if that is None.

    Raises if it has another type or more than `limit` bytes. The size in its header is checked before memory is
    allocated for it.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        np.lib.format.read_magic(file)
        shape, _, found = np.lib.format.read_array_header_1_0(file)
        num_bytes = member.file_size - file.tell()
    is_wanted = found == dtype if dtype else found.kind == "U" and shape == ()
    if not is_wanted or num_bytes > limit or math.prod(shape) * found.itemsize != num_bytes:
        raise ValueError(f"{name} is not the array that was written")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


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
                **{name: getattr(annotations, name) for name in DTYPES},
            )
    except OSError:  # a read-only folder or a full disk: the next start parses the file again
        pass

"""Annotation files parsed once: their arrays are kept beside them for the next start.

A cache may come with a stranger's data, so it is believed no more than the annotation file: it passes the same checks.
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

CACHE_FORMAT = "retinanet annotations 2"  # to change with the checks or the arrays: older caches are then rebuilt
# No array is larger than the annotation file, where a box is 48 letters or more, but for the class names: a letter of
# 4 bytes is written as 12 letters of 4 bytes each.
MOST_NAME_BYTES = 12


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
    return f"{CACHE_FORMAT} {status.st_size} {status.st_mtime_ns} {digest}"


def _read(path: Path, key: str) -> Annotations | None:
    """The cached annotations of `path`; None where there are none, or stale, broken or forged ones."""
    cache = cache_path(path)
    if not cache.is_file():  # a pipe would be waited for without end
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
    except Exception:  # zipfile, NumPy and json raise whatever the bytes lead them to, and a cache is no reason to stop
        return None


def _read_text(archive: zipfile.ZipFile, name: str, limit: int) -> str:
    return str(_read_array(archive, name, None, limit))


def _read_array(archive: zipfile.ZipFile, name: str, dtype: np.dtype | None, limit: int) -> np.ndarray:
    """The array `name` of `archive`, of `dtype`, or with None a text.

    Raises where it is another, or of more than `limit` bytes. What its header claims is compared with what there is
    before memory is taken for it.
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
    except OSError:  # a read-only folder or a full disk: then the next start parses the file again
        pass

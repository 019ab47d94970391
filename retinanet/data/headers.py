"""Reads the headers of a set's image files once, keeps them in the user's cache folder, and turns boxes upright."""

import hashlib
import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from retinanet.coco.annotation_cache import cache_folder, read_entry, write_entry
from retinanet.coco.annotations import Annotations, turned_upright
from retinanet.coco.boxes import SWAPS, turned_sizes
from retinanet.data.images import Header, read_header
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.streams import hides_bars
from retinanet.settings.shared import RAW

FORMAT = 1  # increase when the arrays change, so that older entries are rebuilt
ARRAYS = ("sizes", "orientations", "are_deep")
NOTES = ("are_decoded", "are_boxes_judged")
THREADS = 16  # on a network drive, most of the time is spent waiting
FILES_A_TASK = 100
UNREADABLE = Header(0, 0, 1)


class Headers(NamedTuple):
    """The headers of a set's N image files."""

    sizes: np.ndarray  # int32 [N, 2], (height, width) of the stored pixels; (0, 0) if the header wasn't read
    orientations: np.ndarray  # uint8 [N], EXIF orientations, 1 to 8
    are_deep: np.ndarray  # bool [N], 16 bits per channel
    are_decoded: bool = False  # all pixels of the set have been decoded, without an error
    entry: Path | None = None  # the file in the cache folder
    are_boxes_judged: bool = False  # a training run has checked whether the boxes fit the pictures

    def at(self, index: int) -> Header | None:
        """Returns the header of an image; None if it wasn't read."""
        height, width = self.sizes[index].tolist()
        return Header(height, width, int(self.orientations[index]), bool(self.are_deep[index])) if height else None

    def save(self) -> None:
        content = {name: getattr(self, name) for name in ARRAYS}
        for name in NOTES:
            content[name] = np.array(getattr(self, name))
        write_entry(self.entry, content | {"format": np.array(FORMAT)})

    def forget(self) -> None:
        """Removes the cache entry, so that the next start reads the headers again."""
        if self.entry:
            self.entry.unlink(missing_ok=True)


def read_headers(annotations: Annotations, folder: Path, rows: Sequence[int] | None = None) -> Headers:
    """Returns the headers of the image files in `folder`: from the cache or, if it lacks them, from the files.

    A cached size that doesn't fit its annotation is read again, because the file may have been replaced since. With
    `rows`, only the headers of the images in those rows are read, and nothing is cached.
    """
    headers = _cached(annotations, folder)
    others = turned_sizes(headers.sizes, headers.orientations)
    fits = [(annotations.sizes == sizes).all(axis=1) for sizes in (headers.sizes, others)]
    missing = np.flatnonzero(~(fits[0] | fits[1]))
    if rows is not None:
        missing = missing[np.isin(missing, rows)]
    if not len(missing):
        return headers
    paths = (folder / annotations.file_name(index) for index in missing.tolist())
    with ThreadPool(THREADS) as threads:
        read = threads.imap(_header, paths, FILES_A_TASK)
        bar = tqdm(read, "Image headers", total=len(missing), leave=False, disable=hides_bars())
        table = np.array(list(bar), np.int32)  # [n, 4]
    headers.sizes[missing], headers.orientations[missing] = table[:, :2], table[:, 2]
    headers.are_deep[missing] = table[:, 3]
    if rows is None and annotations.fingerprint and table[:, 0].any():
        headers.save()
    return headers


def upright_annotations(annotations: Annotations, headers: Headers, *, every: bool = False) -> Annotations:
    """Turns boxes upright if their image's annotated size proves that they refer to the stored pixels.

    With `every`, also turns the boxes of images whose size proves nothing, because it fits both orientations.
    """
    is_turned = are_of_stored_pixels(annotations, headers)
    if every:
        is_turned |= are_untold(annotations, headers)
    return turned_upright(annotations, np.where(is_turned, headers.orientations, 1).astype(np.uint8))


def are_of_stored_pixels(annotations: Annotations, headers: Headers) -> np.ndarray:
    """Marks the images whose annotated size matches the stored pixels but not the upright picture: bool [N]."""
    is_stored = (annotations.sizes == headers.sizes).all(axis=1)
    return is_stored & (headers.sizes != turned_sizes(headers.sizes, headers.orientations)).any(axis=1)


def are_untold(annotations: Annotations, headers: Headers) -> np.ndarray:
    """Marks the images with an EXIF orientation other than 1 that doesn't change their size: bool [N].

    Their size can't show whether the boxes refer to the upright picture or to the stored pixels.
    """
    is_stored = (annotations.sizes == headers.sizes).all(axis=1)
    is_square = headers.sizes[:, 0] == headers.sizes[:, 1]
    return is_stored & (headers.orientations != 1) & (is_square | ~SWAPS[headers.orientations])


def frame_notes(annotations: Annotations, headers: Headers, exif: str) -> list[str]:
    """Returns notes on images whose boxes were turned upright, or whose size doesn't show whether to turn them.

    With RAW, returns no notes.
    """
    if exif == RAW:
        return []
    num_turned = 0 if annotations.turns is None else int((annotations.turns != 1).sum())
    return frame_texts(num_turned, int(are_untold(annotations, headers).sum()))


def frame_texts(num_turned: int, num_untold: int) -> list[str]:
    """Returns notes on images with an EXIF orientation, one for each count above 0.

    In `num_turned` images, the boxes were turned upright; in `num_untold`, the size doesn't show whether the boxes
    refer to the upright picture.
    """
    lines = []
    if num_turned:
        lines.append(
            "boxes that refer to the stored pixels are turned upright with their pictures, in "
            f"{counted(num_turned, 'image')}"
        )
    if num_untold:
        lines.append(
            f"{counted(num_untold, 'image')} with an EXIF orientation, where the size doesn't tell whether the boxes "
            "refer to the upright picture, as is assumed, or to the stored pixels (--exif raw)"
        )
    return lines


def _cached(annotations: Annotations, folder: Path) -> Headers:
    """Returns the cached headers; without a cache entry, all headers count as unread."""
    place, count = cache_folder(), len(annotations.sizes)
    entry = None
    if place and annotations.fingerprint:
        digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
        entry = place / f"{annotations.fingerprint}.{digest}.npz"
    content = read_entry(entry) if entry else None
    if content and content.get("format") == FORMAT and len(content.get("sizes", ())) == count:
        sizes, orientations, are_deep = (content[name] for name in ARRAYS)
        notes = {name: bool(content.get(name, False)) for name in NOTES}  # earlier versions wrote fewer
        return Headers(sizes, orientations, are_deep, entry=entry, **notes)
    return Headers(np.zeros((count, 2), np.int32), np.ones(count, np.uint8), np.zeros(count, bool), entry=entry)


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except UserError:  # the caller decides whether that matters
        return UNREADABLE

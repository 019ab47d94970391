"""Checks the image files of a data set: decodes each image and looks for other images with the same pixels."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.check_data.findings import Findings
from retinanet.data.dataset import CocoDataset
from retinanet.data.images import image_suffixes, read_with_orientation
from retinanet.runtime.errors import DataFault
from retinanet.runtime.tree import walk

IMAGES_A_TASK = 8  # the number of images that a thread takes at a time


class Content(NamedTuple):
    """The contents of an image file, or only an `error` if training would refuse the file."""

    digest: bytes = b""  # of the RGB pixels, whatever the file format
    orientation: int = 1  # from EXIF; 1 is upright
    is_turned: bool = False  # rotated by the orientation, to match the annotated size
    error: DataFault | None = None


def read_contents(dataset: CocoDataset, threads: int) -> Iterator[Content]:
    """Yields the contents of each image file, in order. Threads are enough: Pillow and hashlib release the GIL."""
    with ThreadPool(threads) as pool:
        yield from pool.imap(lambda index: _content(dataset, index), range(len(dataset)), IMAGES_A_TASK)


def unlisted_images(folder: Path, file_names: Iterable[Any]) -> list[str]:
    """Returns the image files below `folder` that are not among `file_names`, sorted."""
    suffixes = image_suffixes()
    listed = {os.path.normpath(file_name) for file_name in file_names if isinstance(file_name, str)}
    files = (path for path, reason in walk(folder) if not reason and path.suffix.lower() in suffixes)
    return sorted(name for path in files if (name := os.path.relpath(path, folder)) not in listed)


def _content(dataset: CocoDataset, index: int) -> Content:
    path, (height, width) = dataset.path(index), dataset.annotations.sizes[index].tolist()
    try:
        image, orientation, is_turned = read_with_orientation(path, (height, width), dataset.max_pixels)
    except DataFault as error:
        return Content(error=error)
    digest = hashlib.blake2b(f"{height} x {width}".encode(), digest_size=16)
    digest.update(image.data)
    return Content(digest.digest(), orientation, is_turned)


def note_contents(checked: CheckedSet, contents: list[Content], findings: Findings) -> None:
    """Adds images that training refuses, rotates, or doesn't rotate despite EXIF, and unlisted files, to `findings`."""

    def add(kind: str, rows: list[int]) -> None:
        findings.add(checked.name, kind, [checked.image_label(row) for row in rows])

    for content in contents:
        if content.error:
            findings.add(checked.name, content.error.kind, [str(content.error)])
    add("image_turned", [row for row, content in enumerate(contents) if content.is_turned])
    not_turned = [row for row, content in enumerate(contents) if content.orientation != 1 and not content.is_turned]
    add("image_not_turned", not_turned)
    findings.add(checked.name, "image_unlisted", unlisted_images(checked.dataset.image_folder, checked.file_names))


def note_repeated(sets: list[tuple[CheckedSet, list[Content]]], findings: Findings) -> None:
    """Adds the images with the same pixels as another image of their set or of an earlier set to `findings`."""
    earlier: dict[bytes, str] = {}
    for checked, contents in sets:
        in_this_set: dict[bytes, int] = {}
        for row, content in enumerate(contents):
            if content.error:
                continue
            label = checked.image_label(row)
            if content.digest in earlier:
                findings.add(checked.name, "image_in_two_sets", [f"{label} is {earlier[content.digest]}"])
            before = in_this_set.setdefault(content.digest, row)
            if checked.dataset.path(before) != checked.dataset.path(row):  # otherwise reported as file_twice
                findings.add(checked.name, "image_twice", [f"{label} is {checked.image_label(before)}"])
        for digest, row in in_this_set.items():
            earlier.setdefault(digest, f"{checked.image_label(row)} of {checked.name}")

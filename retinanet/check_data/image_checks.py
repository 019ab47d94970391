"""What the image files of a data set hold: each decoded, and told from the others by its pixels."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.check_data.findings import Findings
from retinanet.data.dataset import CocoDataset
from retinanet.data.images import image_suffixes, read_with_orientation
from retinanet.runtime.errors import DataFault

IMAGES_A_TASK = 8  # images handed to a thread


class Content(NamedTuple):
    """What an image file holds; an `error` where training would refuse it, and no more then."""

    digest: bytes = b""  # equal where the RGB pixels are, in whatever file
    orientation: int = 1  # EXIF's, 1 for upright
    is_turned: bool = False  # by it, as the annotated size asks
    error: DataFault | None = None


def read_contents(dataset: CocoDataset, threads: int) -> Iterator[Content]:
    """The content of each image file, in order; Pillow decodes and hashlib hashes without holding up other threads."""
    with ThreadPool(threads) as pool:
        yield from pool.imap(lambda index: _content(dataset, index), range(len(dataset)), IMAGES_A_TASK)


def unlisted_images(folder: Path, file_names: Iterable[Any]) -> list[str]:
    """The image files below `folder` that are not among `file_names`, sorted."""
    suffixes = image_suffixes()
    listed = {os.path.normpath(file_name) for file_name in file_names if isinstance(file_name, str)}
    found = []
    for below, _, names in os.walk(folder):
        images = (os.path.relpath(os.path.join(below, name), folder) for name in names)
        found += [name for name in images if os.path.splitext(name)[1].lower() in suffixes and name not in listed]
    return sorted(found)


def _content(dataset: CocoDataset, index: int) -> Content:
    path, (height, width) = dataset.path(index), dataset.annotations.sizes[index].tolist()
    try:
        image, orientation, is_turned = read_with_orientation(path, (height, width), dataset.max_pixels)
    except DataFault as error:
        return Content(error=error)
    digest = hashlib.blake2b(f"{height} x {width}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image.numpy()).data)
    return Content(digest.digest(), orientation, is_turned)


def note_contents(checked: CheckedSet, contents: list[Content], findings: Findings) -> None:
    """Note the images of a set that training would refuse or turn, and those that it does not know of."""

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
    """Note the images that show what another one shows, of their own set or of one before it."""
    earlier: dict[bytes, str] = {}
    for checked, contents in sets:
        own: dict[bytes, int] = {}
        for row, content in enumerate(contents):
            if content.error:
                continue
            label = checked.image_label(row)
            if content.digest in earlier:
                findings.add(checked.name, "image_in_two_sets", [f"{label} is {earlier[content.digest]}"])
            before = own.setdefault(content.digest, row)
            if checked.dataset.path(before) != checked.dataset.path(row):  # else file_twice tells of it
                findings.add(checked.name, "image_twice", [f"{label} is {checked.image_label(before)}"])
        for digest, row in own.items():
            earlier.setdefault(digest, f"{checked.image_label(row)} of {checked.name}")

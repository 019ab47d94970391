"""Checks the image files of a dataset: decodes each image and looks for other images with the same pixels."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.check_data.findings import MOST_EXAMPLES, Findings
from retinanet.data.box_fit import BoxFit, Looked
from retinanet.data.dataset import CocoDataset
from retinanet.data.edges import edges_of
from retinanet.data.headers import are_of_stored_pixels, are_untold
from retinanet.data.images import image_suffixes
from retinanet.data.similar import Looks, look_of
from retinanet.data.white_level import used_range
from retinanet.runtime.errors import DataFault
from retinanet.runtime.tree import walk
from retinanet.settings.shared import RAW

IMAGES_A_TASK = 8  # the number of images that a thread takes at a time


class Content(NamedTuple):
    """The contents of an image file, or only an `error` if training would refuse the file."""

    digest: bytes = b""  # of the RGB pixels, whatever the file format
    look: Looks | None = None
    error: DataFault | None = None


def read_contents(dataset: CocoDataset, threads: int, fit: BoxFit | None) -> Iterator[Content]:
    """Yields the contents of each image file, in order, and adds to `fit` how well boxes score on each picture.

    Threads are enough: Pillow and hashlib release the GIL.
    """
    with ThreadPool(threads) as pool:
        read = pool.imap(lambda index: _content(dataset, index, fit), range(len(dataset)), IMAGES_A_TASK)
        for content, looked in read:
            if fit and looked:
                fit.add(looked)
            yield content


def unlisted_images(folder: Path, file_names: Iterable[Any]) -> list[str]:
    """Returns the sorted paths, relative to `folder`, of the image files below it that are not among `file_names`."""
    suffixes = image_suffixes()
    listed = {os.path.normpath(file_name) for file_name in file_names if isinstance(file_name, str)}
    files = (path for path, reason in walk(folder) if not reason and path.suffix.lower() in suffixes)
    return sorted(name for path in files if (name := os.path.relpath(path, folder)) not in listed)


def _content(dataset: CocoDataset, index: int, fit: BoxFit | None) -> tuple[Content, Looked | None]:
    try:
        image = dataset.original(index)
    except DataFault as error:
        return Content(error=error), None
    height, width = image.shape[:2]
    digest = hashlib.blake2b(f"{height} x {width}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    looked = fit.look(index, edges_of(image)) if fit and fit.is_needed(index) else None
    return Content(digest.digest(), look_of(image)), looked


def note_contents(checked: CheckedSet, contents: list[Content], findings: Findings) -> None:
    """Adds findings on images that training refuses, EXIF orientations, the white level, and unlisted files."""
    for content in contents:
        if content.error:
            findings.add(checked.name, content.error.kind, [str(content.error)])
    if not any(content.error for content in contents) and checked.dataset.headers:
        checked.dataset.headers._replace(are_decoded=True).save()  # training needn't decode the set before it starts
    _note_orientations(checked, findings)
    if (used := used_range(checked.dataset)) and used.is_far:
        findings.add(checked.name, "white_level_far", [used.text()])
    findings.add(checked.name, "image_unlisted", unlisted_images(checked.dataset.image_folder, checked.file_names))


def _note_orientations(checked: CheckedSet, findings: Findings) -> None:
    headers, annotations = checked.dataset.headers, checked.annotations
    assert headers

    def add(kind: str, is_found: np.ndarray) -> None:
        rows = np.flatnonzero(is_found)
        examples = [checked.image_label(row) for row in rows[:MOST_EXAMPLES].tolist()]
        findings.add(checked.name, kind, examples, len(rows))

    of_stored, untold = are_of_stored_pixels(annotations, headers), are_untold(annotations, headers)
    has_orientation = headers.orientations != 1
    add("image_turned", has_orientation & ~of_stored & ~untold)
    if checked.dataset.exif == RAW:
        add("image_not_turned", of_stored | untold)
    else:
        add("boxes_turned", of_stored)
        add("frame_untold", untold)


def note_repeated(sets: list[tuple[CheckedSet, list[Content]]], findings: Findings) -> None:
    """Adds to `findings` the images with the same pixels as another image of their set or of an earlier set."""
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

"""Stores check_data's results in the user's cache folder: which images of one set look like images of another."""

import hashlib
import os
from pathlib import Path

import numpy as np

from retinanet.coco.annotation_cache import cache_folder, digest_of, read_entry, write_entry
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.data.dataset import CocoDataset
from retinanet.runtime.errors import UserError

ARRAY = "is_alike"


def remember_lookalikes(dataset: CocoDataset, other: CocoDataset, is_alike: np.ndarray) -> None:
    """Stores `is_alike`, bool [N], which marks the images of `dataset` that look like an image of `other`."""
    entry = _entry(dataset, other.annotations.fingerprint, other.image_folder)
    if entry:
        write_entry(entry, {ARRAY: is_alike})


def known_lookalikes(dataset: CocoDataset, coco_path: Path, set_name: str) -> np.ndarray | None:
    """Marks the images of `dataset` that look like an image of the set `set_name` in the data folder: bool [N].

    Returns None if there is no such set, or if check_data hasn't compared the two sets as they are now.
    """
    try:
        path, folder = find_annotation_file(coco_path, set_name), find_image_folder(coco_path, set_name)
    except UserError:
        return None
    entry = _entry(dataset, digest_of(path), folder)
    content = (read_entry(entry) if entry else None) or {}
    is_alike = content.get(ARRAY)
    return is_alike if is_alike is not None and is_alike.shape == (len(dataset),) else None


def _entry(dataset: CocoDataset, fingerprint: str, folder: Path) -> Path | None:
    """Returns the cache file for `dataset` and another set, given the other's `fingerprint` and image `folder`."""
    place, own = cache_folder(), dataset.annotations.fingerprint
    if not place or not own or not fingerprint:
        return None
    folders = [os.fsencode(os.path.realpath(path)) for path in (dataset.image_folder, folder)]
    digest = hashlib.sha256(b"\0".join([own.encode(), fingerprint.encode(), *folders])).hexdigest()[:32]
    return place / f"lookalikes.{digest}.npz"

"""Chooses the pictures for the report's page, and embeds them as JPEGs, up to a limit, or links to the files."""

import base64
import io
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from retinanet.coco.annotations import Annotations
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.analysis import Analysis, image_counts, image_f1, is_taken
from retinanet.evaluation.tide_errors import LOCATION
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import LINK

LARGE, SMALL = 640, 320  # the longest side of an embedded picture, in pixels
SHARE_OF_LARGE = 0.5  # of the limit; if not all pictures fit, the rest of the limit holds SMALL ones
QUALITY = 80  # of the JPEGs
MEGABYTE = 10**6


class Pictures(NamedTuple):
    """Holds the pictures that the page shows for the N images of a set."""

    sources: list[str | None]  # a data: URL or a link
    notes: list[str | None]  # why an image has no source


def telling_order(analyses: Sequence[Analysis], annotations: Annotations) -> np.ndarray:
    """Returns the indices of all images, int64 [N], starting with the images that tell the most about the detector.

    First come, for each analysis, the image with the most false positives, the one with the most misses, and the one
    with the most badly placed boxes, all at the best threshold. With two analyses, these are followed by the images
    whose F1 rises most and falls most from the first to the second. The runners-up by each criterion come next, and so
    on.
    """
    badness = []
    for analysis in analyses:
        counts = image_counts(analysis, annotations)
        misplaced = analysis.found.images[(analysis.errors.kinds == LOCATION) & is_taken(analysis)]
        badness += [counts.false_positives, counts.misses, np.bincount(misplaced, minlength=len(counts.misses))]
    if len(analyses) == 2:
        a, b = (image_f1(analysis, annotations) for analysis in analyses)
        badness += [b - a, a - b]
    num_images = len(annotations.image_ids)
    turns = np.full(num_images, np.inf)
    for number, bad in enumerate(badness):
        places = np.empty(num_images)
        places[np.argsort(-bad, kind="stable")] = np.arange(num_images)
        turns = np.minimum(turns, np.where(bad > 0, places * len(badness) + number, np.inf))
    return np.argsort(turns, kind="stable")


def pictures_of(dataset: CocoDataset, order: np.ndarray, how: str, megabytes: float, folder: Path) -> Pictures:
    """Returns the pictures of a set for a page in `folder`; `how` is EMBED or LINK.

    With EMBED, images are embedded in the `order` given (as indices) until the JPEGs total `megabytes`.
    """
    left_out = f"not embedded: the limit --report_mb {megabytes:g} was reached"
    pictures = Pictures([None] * len(dataset), [left_out] * len(dataset))
    there = dataset.images_there()
    for image in np.flatnonzero(~there).tolist():
        pictures.notes[image] = f"no such file in {dataset.image_folder}"
    order = order[there[order]]
    if how == LINK:
        _link(pictures, dataset, order.tolist(), folder)
    else:
        _embed(pictures, dataset, order.tolist(), int(megabytes * MEGABYTE))
    return pictures


def _link(pictures: Pictures, dataset: CocoDataset, images: Sequence[int], folder: Path) -> None:
    for image in images:
        if _looks_turned(dataset, image):
            pictures.notes[image] = "not linked: a browser would turn it by its EXIF orientation, unlike --exif raw"
        else:
            pictures.sources[image], pictures.notes[image] = _link_to(dataset.path(image), folder), None


def _looks_turned(dataset: CocoDataset, image: int) -> bool:
    """Returns True if browsers, which apply EXIF, would show the file in an orientation that doesn't fit its boxes."""
    header = dataset.headers.at(image) if dataset.headers else None
    height, width = dataset.annotations.sizes[image].tolist()
    return header is not None and header.turn((height, width), dataset.exif) not in (header.orientation, None)


def _link_to(path: Path, folder: Path) -> str:
    """Returns a link from a page in `folder` to `path`.

    The link is relative if the page and the file are on the same drive, so that the two can be moved together.
    """
    try:
        return urllib.parse.quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
    except ValueError:  # another drive of Windows
        return path.resolve().as_uri()


def _embed(pictures: Pictures, dataset: CocoDataset, images: Sequence[int], limit: int) -> None:
    """Embeds the `images` as JPEGs until these total `limit` bytes.

    The JPEGs are LARGE until SHARE_OF_LARGE of the limit is used. After that, they stay LARGE only as long as all
    remaining images are likely to fit, judging by the sizes so far.
    """
    used, num_embedded, longest = 0, 0, LARGE
    for place, image in enumerate(images):
        expected = used / max(num_embedded, 1) * (len(images) - place)
        if used + expected > limit and used >= limit * SHARE_OF_LARGE:
            longest = SMALL
        try:
            jpeg = _jpeg(dataset.original(image), longest)
        except UserError as fault:
            pictures.notes[image] = str(fault)
            continue
        if used + len(jpeg) > limit:
            break
        used, num_embedded = used + len(jpeg), num_embedded + 1
        pictures.sources[image] = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        pictures.notes[image] = None


def _jpeg(pixels: np.ndarray, longest: int) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest))  # never enlarges the picture
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()

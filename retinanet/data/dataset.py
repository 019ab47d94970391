"""Reads a COCO dataset: each image becomes a sample, resized together with its boxes."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, owners_of_rows
from retinanet.coco.boxes import clipped_corners, resized_corners, seen_in, turned_sizes
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.data.batches import BadImage, Sample
from retinanet.data.headers import Headers, frame_notes, read_headers, upright_annotations
from retinanet.data.image_cache import ImageCache
from retinanet.data.images import PicturesChanged, Region, check_image, missing_image, read_image
from retinanet.data.transforms import longest_at, resize, resized_sizes, scale_boxes, to_tensor
from retinanet.detector.structures import CROWD
from retinanet.runtime.errors import UserError
from retinanet.runtime.missing_files import why_missing
from retinanet.settings.shared import MAX_PIXELS, MAX_SIDE, MIN_SIDE, UPRIGHT, WHITE_LEVEL

IMAGES_PER_PART = 2**16  # images per part when boxes are clipped at the start; all at once would double the memory


class Objects(NamedTuple):
    """Objects of a dataset, clipped to their images."""

    images: np.ndarray  # int64 [n], the indices of their images
    labels: np.ndarray  # int64 [n]
    corners: np.ndarray  # float64 [n, 4], (x1, y1, x2, y2) in original pixels
    boxes: np.ndarray  # float64 [n, 4], the same in pixels of the network's input
    areas: np.ndarray  # float64 [n], original square pixels, as annotated


class Window(NamedTuple):
    """Selects a rectangle of an image, in original pixels: the whole image or a tile."""

    row: int  # the index of the image in its set
    top: int
    left: int
    height: int
    width: int


class CocoDataset(Dataset[Sample | BadImage]):
    """Holds the images of a COCO annotation file, resized, with the objects to find in them.

    Crowd regions are not objects to find; boxes are clipped to their image, and boxes without area are dropped.
    `num_crowds` and `num_empty` count the crowd regions and the dropped boxes. With `keep_crowds`, the samples also
    contain the crowd regions, with the label CROWD. For `exif` and `white_level`, see read_image. If there are
    `headers`, the images must still match them. Sizes and boxes in `annotations` must already be oriented as `exif`
    says. For `min_visible`, which only a run on tiles needs, see objects_in.
    """

    def __init__(
        self,
        annotations: Annotations,
        image_folder: Path,
        min_side: int,
        max_side: int,
        max_pixels: int = MAX_PIXELS,
        *,
        keep_crowds: bool = False,
        exif: str = UPRIGHT,
        white_level: int = WHITE_LEVEL,
        headers: Headers | None = None,
        min_visible: float | None = None,
    ) -> None:
        self.annotations = annotations
        self.image_folder = image_folder
        self.min_side, self.max_side, self.max_pixels = min_side, max_side, max_pixels
        self.exif, self.white_level, self.headers = exif, white_level, headers
        self.min_visible = min_visible
        self.cache: ImageCache | None = None  # of the resized images or, in a run on tiles, of the original ones
        # Arrays only: Python objects would be copied in each worker, since reading them changes their reference counts.
        self.sizes = resized_sizes(annotations.sizes, min_side, max_side)  # [N, 2]
        starts = range(0, len(self), IMAGES_PER_PART)
        empty = np.concatenate([np.zeros(0, bool), *(self._empty(start, start + IMAGES_PER_PART) for start in starts)])
        self.num_crowds = int(annotations.crowds.sum())
        self.num_empty = int((empty & ~annotations.crowds).sum())
        self.is_learned = ~annotations.crowds & ~empty  # [T]
        self.is_kept = ~empty if keep_crowds else self.is_learned  # [T], whether a sample includes it

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, index: int) -> Path:
        return self.image_folder / self.annotations.file_name(index)

    def sizes_at(self, rows: np.ndarray, side: int | None) -> np.ndarray:
        """Returns the sizes [n, 2] of the images `rows`, resized to a shorter side of `side` (None: the set's own)."""
        return self.sizes[rows] if side is None else self.sizes_of(self.annotations.sizes[rows], side)

    def sizes_of(self, sizes: np.ndarray, side: int | None) -> np.ndarray:
        """Scales the original `sizes` [n, 2] of images to the shorter side `side` (by default, the dataset's)."""
        side = self.min_side if side is None else side
        return resized_sizes(sizes, side, longest_at(side, self.min_side, self.max_side))

    def size_at(self, index: int | Window, side: int | None) -> tuple[int, int]:
        """Returns the (height, width) to which an image, or a part of it, is resized."""
        if isinstance(index, Window):
            sizes = self.sizes_of(np.array([[index.height, index.width]]), side)
        else:
            sizes = self.sizes_at(np.array([index]), side)
        height, width = sizes[0].tolist()
        return height, width

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns an image's boxes, float32 [objects, 4] in original pixels, and labels, int64 [objects]."""
        rows = self._rows(index, index + 1)
        is_kept = self.is_kept[rows]
        boxes = self._corners(index, index + 1)[is_kept].astype(np.float32)
        labels = np.where(self.annotations.crowds[rows], CROWD, self.annotations.labels[rows])[is_kept]
        return torch.from_numpy(boxes), torch.from_numpy(labels)

    def objects_in(self, window: Window) -> tuple[Tensor, Tensor]:
        """Returns the boxes and labels of the objects in `window`, as `objects` does, but in pixels of the window.

        If the window shows less than `min_visible` of an object's area, the object is neither a target nor background:
        it gets the label CROWD, and its box isn't clipped, so that no anchor that fits the whole object is background.
        """
        assert self.min_visible is not None
        rows = window.row, window.row + 1
        corners = self._corners(*rows)[self.is_kept[self._rows(*rows)]]
        _, labels = self.objects(window.row)
        parts, shares = seen_in(corners, np.repeat([window[1:]], len(corners), axis=0))
        is_hidden = torch.from_numpy(shares < self.min_visible)
        labels = labels.masked_fill(is_hidden, CROWD)
        corner = np.array([window.left, window.top] * 2)
        boxes = np.where((labels == CROWD).numpy()[:, None], corners - corner, parts).astype(np.float32)
        is_seen = torch.from_numpy(shares > 0)
        return torch.from_numpy(boxes)[is_seen], labels[is_seen]

    def learned(self, rows: np.ndarray) -> Objects:
        """Returns the objects among the annotations `rows`, without crowds and empty boxes."""
        rows = rows[self.is_learned[rows]]
        images = owners_of_rows(self.annotations, rows)
        corners = clipped_corners(self.annotations.boxes[rows], self.annotations.sizes[images])
        boxes = resized_corners(corners, self.annotations.sizes[images], self.sizes[images])
        return Objects(images, self.annotations.labels[rows], corners, boxes, self.annotations.areas[rows])

    def overhangs(self) -> np.ndarray:
        """Returns how far each box extends past its image on the worst side, in original pixels: float64 [T]."""
        parts = []
        for start in range(0, len(self), IMAGES_PER_PART):
            left, top, width, height = self.annotations.boxes[self._rows(start, start + IMAGES_PER_PART)].T
            rows, columns = self._sizes_of_owners(start, start + IMAGES_PER_PART).T
            parts.append(np.max([-left, -top, left + width - columns, top + height - rows], axis=0).clip(0))
        return np.concatenate([np.zeros(0), *parts])

    def _rows(self, start: int, stop: int) -> slice:
        """Returns the slice of the annotations of the images from `start` up to, but not including, `stop`."""
        first = self.annotations.first[start : stop + 1]
        return slice(first[0], first[-1])

    def _empty(self, start: int, stop: int) -> np.ndarray:
        """Marks which boxes of the images from `start` to `stop` have no area inside their image."""
        corners = self._corners(start, stop)
        return (corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])

    def _corners(self, start: int, stop: int) -> np.ndarray:
        """Returns the clipped boxes of the images from `start` to `stop`: (x1, y1, x2, y2) float64, original pixels."""
        return clipped_corners(self.annotations.boxes[self._rows(start, stop)], self._sizes_of_owners(start, stop))

    def _sizes_of_owners(self, start: int, stop: int) -> np.ndarray:
        """Returns the (height, width) of each box's image, for all boxes of the images from `start` to `stop`."""
        return np.repeat(self.annotations.sizes[start:stop], np.diff(self.annotations.first[start : stop + 1]), axis=0)

    def read(self, index: int | Window, side: int | None = None) -> Sample:
        """Returns the sample of an image or a part of it, resized to a shorter side of `side` (None: the set's own).

        Raises UserError if the image file can't be read.
        """
        size = self.size_at(index, side)
        if isinstance(index, Window):
            part = self.read_original(index)
            boxes, scale = scale_boxes(part.boxes, (index.height, index.width), size)
            return part._replace(image=resize(part.image, size), boxes=boxes, scale=scale)
        boxes, labels = self.objects(index)
        boxes, scale = scale_boxes(boxes, self.annotations.sizes[index].tolist(), size)
        return Sample(self._image(index, size), boxes, labels, scale, index)

    def read_original(self, index: int | Window) -> Sample:
        """Returns the sample of an image, or of a part of it, at its original size. Raises UserError like `read`."""
        if isinstance(index, Window):
            return Sample(self._part(index), *self.objects_in(index), torch.ones(2), index.row)
        return Sample(to_tensor(self.original(index)), *self.objects(index), torch.ones(2), index)

    def original(self, index: int, region: Region | None = None) -> np.ndarray:
        """Reads an image, or a region of it, at its original size: uint8 [height, width, 3].

        Raises UserError if the file can't be read.
        """
        height, width = self.annotations.sizes[index].tolist()
        header = self.headers.at(index) if self.headers else None
        try:
            return read_image(
                self.path(index),
                (height, width),
                self.max_pixels,
                exif=self.exif,
                white_level=self.white_level,
                header=header,
                region=region,
            )
        except PicturesChanged as fault:
            assert self.headers
            try:
                self.headers.forget()
            except OSError as error:  # the cache folder is read-only
                raise PicturesChanged(
                    f"{fault} First remove {error.filename} ({error.strerror}), or point XDG_CACHE_HOME elsewhere."
                ) from None
            raise

    def _image(self, index: int, size: tuple[int, int] | None) -> Tensor:
        """Returns the image from the cache or its file, resized to `size` (None: at its original size)."""
        image = self.cache.get(index) if self.cache else None
        if image is None:
            image = to_tensor(self.original(index))
            if size and self.min_visible is None:
                image = resize(image, size)
            if self.cache:
                self.cache.put(index, image)
        return resize(image, size) if size else image

    def _part(self, window: Window) -> Tensor:
        row, *region = window
        if not self.cache:
            return to_tensor(self.original(row, Region(*region)))
        top, left, height, width = region
        return self._image(row, None)[:, top : top + height, left : left + width]

    def __getitem__(self, index: int) -> Sample | BadImage:
        try:
            return self.read(index)
        except UserError as fault:
            return BadImage(str(fault))

    def frame_notes(self) -> list[str]:
        """Returns notes on images whose boxes were turned upright, or whose size doesn't show whether to turn them."""
        notes = frame_notes(self.annotations, self.headers, self.exif) if self.headers else []
        return [f"Note: {self.annotations.path}: {note}" for note in notes]

    def images_there(self) -> np.ndarray:
        """Marks the image files that exist: bool [N]. Listing folders is faster than checking each file."""
        listed: dict[bytes, set[bytes]] = {}
        exists = np.zeros(len(self), bool)
        for index, file_name in enumerate(self.annotations.file_names.tolist()):  # as bytes: there may be millions
            below, _, name = file_name.rpartition(b"/")
            if below not in listed:
                folder = self.image_folder / below.decode()
                listed[below] = set(os.listdir(os.fsencode(folder))) if folder.is_dir() else set()
            exists[index] = name in listed[below]
        return exists

    def require_images(self) -> None:
        """Raises UserError if an image file is missing, empty, too large or not of the annotated size.

        Without `headers`, only missing files are noticed.
        """
        missing = np.flatnonzero(~self.images_there())
        if len(missing):
            first = self.path(missing[0])
            if "\\" in first.name:
                raise missing_image(first)
            is_below = (self.image_folder / first.name).is_file()
            below = f" {first.name!r} is in {self.image_folder}, to which file_name is relative." if is_below else ""
            raise UserError(
                f"{first}: no such image, though {self.annotations.path} lists it ({len(missing)} of {len(self)} "
                f"missing).{below or why_missing(first)} Put the images there, or take them out of the annotations."
            )
        if self.headers:
            self._require_good_headers(self.headers)

    def _require_good_headers(self, headers: Headers) -> None:
        unread = np.flatnonzero(headers.sizes[:, 0] == 0).tolist()
        for index in unread:
            if not self.path(index).exists():  # a broken link
                raise missing_image(self.path(index))
        if empty := [index for index in unread if not os.path.getsize(self.path(index))]:
            raise UserError(
                f"{self.path(empty[0])}: is an empty file (empty: {len(empty)} of {len(self)}). Copy "
                "the images again, or take them out of the annotations."
            )
        sizes, swapped = headers.sizes, turned_sizes(headers.sizes, headers.orientations)
        differs = [(self.annotations.sizes != other).any(axis=1) for other in (sizes, swapped)]
        too_large = sizes.prod(axis=1, dtype=np.int64) > self.max_pixels
        for index in np.flatnonzero((differs[0] & differs[1]) | too_large).tolist():
            height, width = self.annotations.sizes[index].tolist()
            check_image(self.path(index), (height, width), self.max_pixels)


def load_set(
    coco_path: Path,
    set_name: str,
    *,
    min_side: int,
    max_side: int,
    max_pixels: int,
    exif: str = UPRIGHT,
    white_level: int = WHITE_LEVEL,
    require_images: bool = True,
    keep_crowds: bool = False,
    min_visible: float | None = None,
) -> tuple[Annotations, CocoDataset]:
    """Loads a set of the dataset folder, and checks its annotations.

    With `require_images`, also checks that its images exist and have good headers. For `keep_crowds`, `exif`,
    `white_level` and `min_visible`, see CocoDataset.
    """
    annotations = load_annotations(find_annotation_file(coco_path, set_name))
    folder = find_image_folder(coco_path, set_name)
    headers = read_headers(annotations, folder)
    if exif == UPRIGHT:
        annotations = upright_annotations(annotations, headers)
    dataset = CocoDataset(
        annotations,
        folder,
        min_side,
        max_side,
        max_pixels,
        keep_crowds=keep_crowds,
        exif=exif,
        white_level=white_level,
        headers=headers,
        min_visible=min_visible,
    )
    if require_images:
        dataset.require_images()
    return annotations, dataset


def load_set_without_images(
    coco_path: Path,
    set_name: str,
    max_pixels: int,
    *,
    exif: str = UPRIGHT,
    white_level: int = WHITE_LEVEL,
    for_pictures: bool = False,
) -> CocoDataset:
    """Loads a set whose images may be missing; `images_there` marks the images that exist.

    With `for_pictures`, boxes have the orientation of the images; otherwise they are as in the annotation file.
    """
    annotations = load_annotations(find_annotation_file(coco_path, set_name))
    folder = find_image_folder(coco_path, set_name, must_exist=False)
    dataset = CocoDataset(annotations, folder, MIN_SIDE, MAX_SIDE, max_pixels)
    if not for_pictures or not (rows := np.flatnonzero(dataset.images_there()).tolist()):
        return dataset
    headers = read_headers(annotations, folder, rows)
    if exif == UPRIGHT:
        annotations = upright_annotations(annotations, headers)
    return CocoDataset(
        annotations, folder, MIN_SIDE, MAX_SIDE, max_pixels, exif=exif, white_level=white_level, headers=headers
    )

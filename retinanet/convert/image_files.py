"""Finds the images that annotations name, and sorts them into sets by their folders."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from retinanet.coco.folder import SETS, known_set
from retinanet.convert.reading import Reading
from retinanet.convert.sets import LabelledImage, LabelledSet, size_of
from retinanet.runtime.errors import DataFault
from retinanet.runtime.tree import folded
from retinanet.settings.shared import RAW, UPRIGHT

IMAGE_FOLDERS = ("JPEGImages", "images")
LABEL_STUDIOS = re.compile("^[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file
NO_SET = "nothing says which set the images are in, so all are read as train"


class ImageFinder:
    """Finds the image that an annotation names, among all images of the dataset."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return self._grouped(lambda path: path.name)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return self._grouped(lambda path: path.stem)

    def _grouped(self, name_of: Callable[[Path], str]) -> dict[str, list[Path]]:
        images = self._reading.images()
        if not images:  # SOURCE is the folder of the annotations, next to the folder of the images
            beside = [self._reading.root.parent / name for name in IMAGE_FOLDERS]
            folder = next((path for place in beside if (path := self._reading.tree.find(place))), None)
            images = self._reading.images(folder) if folder else []
        groups: dict[str, list[Path]] = {}
        for path in images:
            groups.setdefault(folded(name_of(path)), []).append(path)
        return groups

    def find(self, file_name: str, annotation: Path, where: str, *, by_annotation: bool = True) -> Path | None:
        """Returns the image called `file_name`, or else an image with the same stem; None if there is neither.

        With `by_annotation`, the last resort is an image with the stem of the file `annotation`. Raises DataFault if
        the name points outside the dataset, or if several images match.
        """
        path = PurePosixPath(file_name.replace("\\", "/"))
        if "\0" in file_name or (".." in path.parts and not self._reading.told.image_path):
            raise DataFault(
                "names that leave the folder",
                f"{where}: the file name {file_name!r} leaves the folder of the dataset. Write the image's own name, "
                "or name the folder of the images with --image_path.",
            )
        without = LABEL_STUDIOS.sub("", path.name)
        candidates = (
            self._by_name.get(folded(path.name))
            or self._by_stem.get(folded(path.name))
            or self._by_stem.get(folded(path.stem))
            or self._by_name.get(folded(without))
            or self._by_stem.get(folded(without))
            or (self._by_stem.get(folded(annotation.stem)) if by_annotation else None)
            or []
        )
        exact = [candidate for candidate in candidates if candidate.name == path.name] or candidates
        nearness = {candidate: _nearness(candidate, path, annotation) for candidate in exact}
        nearest = [candidate for candidate in exact if nearness[candidate] == max(nearness.values())]
        if len(nearest) > 1:
            raise DataFault(
                "names of several images",
                f"{where}: both {nearest[0]} and {nearest[1]} may be its image {file_name}. Rename one of the two.",
            )
        return nearest[0] if nearest else None

    def size(
        self, image: Path, where: str, annotated: tuple[float, float] | None, where_annotated: str
    ) -> tuple[int, int]:
        """Returns the (width, height) of an image, upright or as stored, whichever matches the annotated size.

        Raises DataFault if the annotated size is known and neither matches.
        """
        width, height = self._reading.size(image, where)
        if annotated and annotated != (0, 0) and tuple(map(round, annotated)) != (width, height):
            other = size_of(image, where, RAW if self._reading.exif == UPRIGHT else UPRIGHT)
            if tuple(map(round, annotated)) == other:
                return other
            raise DataFault(
                "images of another size",
                f"{where_annotated}: says {annotated[0]:g} x {annotated[1]:g}, but {image} is {width} x {height} "
                "(width x height). Use the image that was annotated, or correct the size.",
            )
        return width, height


def _nearness(candidate: Path, named: PurePosixPath, annotation: Path) -> tuple[int, ...]:
    """Returns a sort key: how many folders the image shares with the annotated path, then with the annotation file.

    If these numbers are equal, an image in an image folder is preferred, because VOC keeps masks with the same names in
    other folders. The last criterion is the depth of the folder, which should be close to the annotation file's.
    """
    folders, theirs = candidate.parent.parts, annotation.parent.parts
    return (
        num_shared(named.parent.parts[::-1], folders[::-1]),
        num_shared(theirs[::-1], folders[::-1]),
        num_shared(theirs, folders),
        int(_image_folder(candidate.parent) is not None),
        -abs(len(folders) - len(theirs)),
    )


def num_shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns how many leading parts two paths have in common."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def require_first(owners: dict[Path, str], image: Path, where: str, name: str = "") -> None:
    """Records in `owners` that the annotation at `where`, called `name` if given, has the labels of `image`.

    Raises DataFault if another annotation has them already.
    """
    if image in owners:
        raise DataFault(
            "names of several images",
            f"{where}: its image is {image}, which already has the labels of {owners[image]}. If these are two images, "
            "put both there; otherwise, remove one of the two.",
        )
    owners[image] = name or where


def sets_by_folder(reading: Reading, images: Mapping[Path, LabelledImage]) -> list[LabelledSet]:
    """Divides the images into sets by the names of their folders; if no folder names a set, all images go into train.

    If some folders name a set, images outside them are left out. `images` are keyed by annotation file.
    """
    sets: dict[str, dict[Path, LabelledImage]] = {}
    for file, image in images.items():
        words = [word for path in (file, image.path) for word in _folders_below(path, reading.root)]
        words = [re.sub(r"[-_]?(xmls?|annotations?|labels|images)$", "", word.lower()) for word in words]
        name = next((known for word in words if (known := known_set(word))), "")
        sets.setdefault(name, {})[file] = image
    if len(sets) > 1 and "" in sets:
        left = sets.pop("")
        example = next(iter(left))
        reading.notes.append(f"images outside the folders of the sets are left out: {len(left)}, such as {example}")
        for file, image in left.items():
            for path in (file, image.path):
                reading.tree.leave(path, "outside the folders of the sets")
    if set(sets) == {""}:
        if not reading.told.set:
            reading.notes.append(NO_SET)
        sets = {"train": sets[""]}
    return [set_of(name, sets[name]) for name in SETS if name in sets]


def _folders_below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()


def set_of(name: str, images: Mapping[Path, LabelledImage]) -> LabelledSet:
    """Returns a set whose images are named by their paths relative to a folder that contains all of them."""
    folders = [image.path.parent for image in images.values()]
    tops = {_image_folder(folder) for folder in folders}
    top = tops.pop() if len(tops) == 1 else None
    if top is None or all(known_set(folder.relative_to(top).parts[0]) for folder in folders if folder != top):
        top = Path(os.path.commonpath(folders)) if folders else Path()
    return LabelledSet(name, [image._replace(name=image.path.relative_to(top).as_posix()) for image in images.values()])


def _image_folder(folder: Path) -> Path | None:
    """Returns the first of `folder` and its parents that is called JPEGImages or images, ignoring case, or None."""
    names = {name.lower() for name in IMAGE_FOLDERS}
    return next((place for place in (folder, *folder.parents) if place.name.lower() in names), None)

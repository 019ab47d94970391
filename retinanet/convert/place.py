"""Moves written files into place: all or none, a dataset only after reading it back, and never over existing files."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from retinanet.coco.folder import SETS, set_name_of
from retinanet.coco.formats import WORDS
from retinanet.convert.readers import read_dataset
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.runtime.errors import UserError, either, file_error_explained
from retinanet.runtime.files import UNFINISHED
from retinanet.settings.convert import COCO, CSV, LINK, NONE, VOC, YOLO

# How far a corner that is read back may be off: in pixels, plus a fraction of the image's side.
ROUNDING = {YOLO: (1e-3, 1e-6), VOC: (1.0, 0.0), CSV: (1e-6, 1e-9), COCO: (1e-6, 0.0)}
IMAGES = "images/{}"  # with the name of the set


class Layout(NamedTuple):
    """The files and folders of a format, and the function that writes its annotations."""

    kind: str
    image_folder: str  # with {} for the name of the set
    annotations: Iterable[str]  # files and folders, without the images
    write: Callable[[Path], None]  # writes the annotations to a folder that has the images


def place_whole(folder: Path, names: Iterable[str], write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary folder in `folder`, then moves `names` from there to `folder`.

    Raises UserError if one of the names already exists in `folder`. If anything fails, `folder` is left as it was.
    """
    names = list(names)
    for name in names:
        if os.path.lexists(folder / name):
            raise UserError(
                f"{folder / name}: already exists, and convert never overwrites. Choose another --output_path."
            )
    beside = folder / f"{secrets.token_hex(4)}{UNFINISHED}"
    missing = {place for name in names for place in (folder / name).parents if not place.exists()}
    placed = []
    with file_error_explained(folder, "can't be written to", "Make room, or choose another --output_path."):
        try:
            beside.mkdir(parents=True)
            write(beside)
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.rename(beside / name, folder / name)
                placed.append(name)
        except BaseException:
            for name in placed:
                os.rename(folder / name, beside / name)
            raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            for place in sorted(missing, key=lambda place: len(place.parts), reverse=True):  # the deepest first
                with contextlib.suppress(OSError):  # it doesn't exist, or contains placed files
                    place.rmdir()


def place_set(labelled: Labelled, folder: Path, images: str, layout: Layout) -> None:
    """Writes a dataset, reads it back, and only then moves it to `folder`.

    Raises UserError if the dataset that is read back differs from the one that was written. `images` says whether
    images are linked, copied or left out.
    """
    image_folders = {labelled_set.name: layout.image_folder.format(labelled_set.name) for labelled_set in labelled.sets}

    def write(beside: Path) -> None:
        for labelled_set in labelled.sets:  # readers need the images, even if they don't stay
            _put_images(labelled_set, beside / image_folders[labelled_set.name], LINK if images == NONE else images)
        layout.write(beside)
        try:
            again = _read_again(beside, layout.kind, list(image_folders))
        except UserError as error:
            reason = str(error).replace(str(beside), str(folder))
            raise UserError(f"{_refusal(layout.kind)} {reason}") from None
        _require_same(labelled, again, beside, layout, image_folders)

    place_whole(
        folder, [*(() if images == NONE else dict.fromkeys(image_folders.values())), *layout.annotations], write
    )


def _put_images(labelled_set: LabelledSet, folder: Path, how: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in labelled_set.images:
        place = folder / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if how == LINK:
            place.symlink_to(image.path.resolve())
        else:
            shutil.copy2(image.path, place)


def _read_again(folder: Path, kind: str, names: list[str]) -> Labelled:
    if kind == COCO and not set(names) <= {*SETS}:
        every = [_with_name(read_dataset(folder / f"{name}.json", kind), name) for name in names]
        return every[0]._replace(sets=[each.sets[0] for each in every])
    again = read_dataset(folder, kind)
    return _with_name(again, names[0]) if len(names) == 1 else again


def _with_name(labelled: Labelled, name: str) -> Labelled:
    """Renames the only set to `name`, because its file name doesn't always say which set it is."""
    return labelled._replace(sets=[labelled.sets[0]._replace(name=name), *labelled.sets[1:]])


def _refusal(kind: str) -> str:
    return f"In {WORDS[kind]} the set couldn't be read again, so nothing is written."


def _require_same(
    labelled: Labelled, again: Labelled, beside: Path, layout: Layout, image_folders: dict[str, str]
) -> None:
    """Raises UserError unless `again`, the dataset that was read back, equals `labelled`, except for rounding."""

    def refuse(what: str, written: object, read: object) -> None:
        advice = either("Change it", "choose another --to", "leave the format out of --save")
        raise UserError(f"{_refusal(layout.kind)} {what}: {written} would be read as {read}. {advice}.")

    if again.class_names != labelled.class_names:
        refuse("The classes", labelled.class_names, again.class_names)
    if labelled.category_ids and again.category_ids not in (None, labelled.category_ids):
        refuse("The category ids", labelled.category_ids, again.category_ids)
    images_of = {set_name_of(labelled_set.name): labelled_set.images for labelled_set in again.sets}
    for name, images in ((labelled_set.name, labelled_set.images) for labelled_set in labelled.sets):
        read = {os.path.abspath(image.path): image for image in images_of.pop(set_name_of(name), [])}
        for image in images:
            image_again = read.pop(os.path.abspath(beside / image_folders[name] / image.name), None)
            if image_again is None:
                refuse(f"{image.path}", f"the image {image.name} of the set {name}", "nothing")
            elif difference := _difference(image, image_again, layout.kind):
                refuse(f"{image.path}", *difference)
        if read:
            refuse(f"The set {name}", "nothing", f"the images {', '.join(sorted(read)[:3])}")
    for labelled_set in labelled.sets if layout.kind == COCO else ():
        content_again = next(each.content for each in again.sets if each.name == labelled_set.name)
        if labelled_set.content != content_again:
            refuse(f"What {labelled_set.name}.json says besides its images", labelled_set.content, content_again)
    if images_of:
        refuse("The sets", [labelled_set.name for labelled_set in labelled.sets], list(images_of))


def _difference(image: LabelledImage, again: LabelledImage, kind: str) -> tuple[object, object] | None:
    """Returns the first difference beyond the format's rounding, as (value written, value read back), or None."""
    size, size_again = (f"{each.width} x {each.height} pixels" for each in (image, again))
    if size != size_again:
        return size, size_again
    if len(image.boxes) != len(again.boxes):
        return f"{len(image.boxes)} boxes", f"{len(again.boxes)}"
    pixels, share = ROUNDING[kind]
    limits = [pixels + share * side for side in (image.width, image.height)] * 2
    for box, box_again in zip(image.boxes, again.boxes, strict=True):
        corners = zip(_corners(box), _corners(box_again), limits, strict=True)
        is_near = all(abs(number - number_again) <= limit for number, number_again, limit in corners)
        if not is_near or (box.label, box.is_crowd) != (box_again.label, box_again.is_crowd):
            return box, box_again
    if kind == COCO:  # file names are not compared: a name may lose a leading folder when read back
        entries, entries_again = (
            ({**(each.entry or {}), "file_name": image.name}, each.box_entries) for each in (image, again)
        )
        if entries != entries_again:
            return entries, entries_again
    return None


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.left + box.width, box.top + box.height

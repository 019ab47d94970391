"""Writes a data folder in the suite's layout, completely or not at all, and never overwrites files."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from retinanet.convert.sets import Labelled, LabelledImage, LabelledSet
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.settings.convert import LINK, NONE


def place_whole(folder: Path, names: Iterable[str], write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary folder, then moves `names` to `folder`. Raises UserError if any exists there."""
    names = list(names)
    for name in names:
        if os.path.lexists(folder / name):
            raise UserError(
                f"{folder / name}: already exists, and convert never overwrites. Choose another --output_path."
            )
    beside = folder / f".{secrets.token_hex(4)}.part"
    with file_error_explained(folder, "can't be written to", "Make room, or choose another --output_path."):
        beside.mkdir(parents=True)
        try:
            write(beside)
            for name in names:
                if (beside / name).exists():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.rename(beside / name, folder / name)
        finally:
            shutil.rmtree(beside)


def write_coco(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes {set}.json and images/{set}/ for each set."""

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            put_images(labelled_set, place / "images" / labelled_set.name, images)
            content = coco_content(labelled_set, labelled)
            (place / f"{labelled_set.name}.json").write_text(json.dumps(content), encoding="utf-8")

    names = [
        name for labelled_set in labelled.sets for name in (f"images/{labelled_set.name}", f"{labelled_set.name}.json")
    ]
    place_whole(folder, names, write)


def image_ids(labelled_set: LabelledSet) -> list[int]:
    """Returns an id for each image of a set: the source's id, or the file name if all are numbers, or 1, 2, 3 ..."""
    ids = [image.image_id for image in labelled_set.images if image.image_id is not None]
    if len(ids) == len(labelled_set.images) and len(set(ids)) == len(ids):
        return ids
    stems = [image.path.stem for image in labelled_set.images]
    if all(stem.isdecimal() and len(stem) < 19 for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(labelled_set.images) + 1))


def coco_content(labelled_set: LabelledSet, labelled: Labelled) -> dict[str, Any]:
    """Returns the contents of a set's COCO annotation file."""
    category_ids = labelled.category_ids or list(range(1, len(labelled.class_names) + 1))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in zip(image_ids(labelled_set), labelled_set.images, strict=True):
        names = {"file_name": image.name, "width": image.width, "height": image.height}
        images.append({"id": image_id, **names})
        for label, left, top, width, height, is_crowd in image.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[label],
                    "bbox": [_plain(number) for number in (left, top, width, height)],
                    "area": _plain(width * height),
                    "iscrowd": int(is_crowd),
                }
            )
    pairs = zip(category_ids, labelled.class_names, strict=True)
    categories = [{"id": category_id, "name": name} for category_id, name in pairs]
    return {"images": images, "annotations": annotations, "categories": categories}


def put_images(labelled_set: LabelledSet, folder: Path, how: str) -> None:
    """Links or copies the images of a set into `folder`. Raises UserError if two images would have the same name."""
    if how == NONE:
        return
    folder.mkdir(parents=True)
    names: dict[str, LabelledImage] = {}
    for image in labelled_set.images:
        if image.name in names:
            raise UserError(
                f"{image.path}: {names[image.name].path} has the same name in the set {labelled_set.name}. Rename one "
                "of the two, or split one set at a time."
            )
        names[image.name] = image
        place = folder / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if how == LINK:
            place.symlink_to(image.path.resolve())
        else:
            shutil.copy2(image.path, place)


def _plain(number: float) -> float | int:
    """Rounds to 6 decimal places, and converts whole numbers to int."""
    number = round(number, 6)
    return int(number) if number == int(number) else number

"""Writes a data folder in this project's layout. Information beyond the boxes is kept if the source is COCO."""

import json
from pathlib import Path
from typing import Any

from retinanet.convert.place import IMAGES, Layout, place_set
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.settings.convert import COCO


def write_coco(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes {set}.json and images/{set}/ for each set of a dataset that with_entries returned."""
    names = [labelled_set.name for labelled_set in labelled.sets]

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            lists = {
                "images": [image.entry for image in labelled_set.images],
                "annotations": [entry for image in labelled_set.images for entry in image.box_entries or ()],
            }
            content = lists | (labelled_set.content or {})
            (place / f"{labelled_set.name}.json").write_text(json.dumps(content), encoding="utf-8")

    place_set(labelled, folder, images, Layout(COCO, IMAGES, [f"{name}.json" for name in names], write))


def with_entries(labelled: Labelled) -> tuple[Labelled, list[str]]:
    """Returns the dataset with COCO entries for all images and boxes, and notes about ids that had to change.

    Entries from a COCO file keep all their fields. Ids are renumbered only if two in a set are equal or one is missing.
    """
    category_ids = labelled.category_ids or list(range(1, len(labelled.class_names) + 1))
    pairs = zip(category_ids, labelled.class_names, strict=True)
    categories = [{"id": category_id, "name": name} for category_id, name in pairs]
    sets, notes = [], []
    for name, images, content in ((each.name, each.images, each.content) for each in labelled.sets):
        ids = _image_ids(images)
        if any(image.image_id not in (None, new_id) for image, new_id in zip(images, ids, strict=True)):
            notes.append(f"the image ids of {name} are renumbered, because images of several sets share ids")
        entries = [entry for image in images for entry in image.box_entries or [{} for _ in image.boxes]]
        box_ids = _box_ids(entries)
        if any(entry.get("id", new_id) != new_id for entry, new_id in zip(entries, box_ids, strict=True)):
            notes.append(f"the annotation ids of {name} are renumbered, because some are missing or occur twice")
        boxes = zip(entries, box_ids, strict=True)
        full = []
        for image, image_id in zip(images, ids, strict=True):
            own = {"file_name": image.name, "width": image.width, "height": image.height}
            box_entries = [_box_entry(box, image_id, category_ids[box.label], *next(boxes)) for box in image.boxes]
            full.append(
                image._replace(
                    image_id=image_id, entry={**(image.entry or {}), "id": image_id, **own}, box_entries=box_entries
                )
            )
        sets.append(LabelledSet(name, full, {"categories": categories, **(content or {})}))
    return labelled._replace(sets=sets, category_ids=category_ids), notes


def _image_ids(images: list[LabelledImage]) -> list[int]:
    """Returns each image's id in a set: its id in the source, its file name if all names are numbers, or 1, 2, 3 ..."""
    ids = [image.image_id for image in images if image.image_id is not None]
    if len(ids) == len(images) and len(set(ids)) == len(ids):
        return ids
    stems = [image.path.stem for image in images]
    if all(stem.isdecimal() and len(stem) < 19 for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(images) + 1))


def _box_ids(entries: list[dict[str, Any]]) -> list[Any]:
    ids = [entry.get("id") for entry in entries]
    is_good = None not in ids and len({repr(each) for each in ids}) == len(ids)  # an id may be any JSON value
    return ids if is_good else list(range(1, len(entries) + 1))


def _box_entry(box: Box, image_id: int, category_id: int, entry: dict[str, Any], box_id: Any) -> dict[str, Any]:
    corner_and_size = [box.left, box.top, box.width, box.height]
    new = {
        "bbox": entry["bbox"] if entry.get("bbox") == corner_and_size else list(map(_plain, corner_and_size)),
        "area": _plain(box.width * box.height),
        "iscrowd": int(box.is_crowd),
    }
    if box.score is not None:
        new["score"] = box.score
    kept = {key: entry[key] for key in ("area", "iscrowd") if entry.get(key) is not None}
    return {**entry, "id": box_id, "image_id": image_id, "category_id": category_id, **new, **kept}


def _plain(number: float) -> float | int:
    """Rounds to 6 decimal places, and converts whole numbers to int."""
    number = round(number, 6)
    return int(number) if number == int(number) else number

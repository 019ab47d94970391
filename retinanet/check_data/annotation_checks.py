"""Checks annotations for entries that training refuses, drops or clips, and for entries that are probably wrong."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.check_data.findings import MOST_EXAMPLES, Findings
from retinanet.coco.annotation_cache import digest_of
from retinanet.coco.annotations import (
    Annotations,
    check_annotations,
    has_objects,
    one_box_for_all,
    owners_of,
    owners_of_rows,
    placeholder_note,
)
from retinanet.coco.boxes import corners_for_sizes
from retinanet.data.dataset import CocoDataset
from retinanet.data.headers import read_headers, upright_annotations
from retinanet.data.learnable import SCARCE, require_objects, require_reach
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.errors import DataFault
from retinanet.runtime.json_files import read_json
from retinanet.settings.shared import UPRIGHT, TrainTiles

# Rounding may make an area exceed the area of its box by this factor. The box may also include its last pixels, as in
# PASCAL VOC.
AREA_ROUNDING = 1.01
SOURCE_KEYS = ("source", "annotator", "annotator_id", "created_by", "creator", "tool")


class CheckedSet(NamedTuple):
    """A set without the entries that training would refuse."""

    name: str
    annotations: Annotations  # as written in the file, unlike those of the dataset, which may be turned upright
    dataset: CocoDataset
    file_names: list[Any]  # of all entries, including refused entries, as written
    annotation_ids: list[Any]  # of all entries, as written
    places: np.ndarray  # int64 [T], each annotation's index in annotation_ids
    sources: list[str]  # of all entries: who or what made them, or "" if they don't say

    def label(self, row: int) -> str:
        """Returns the report's label for the annotation `row`."""
        (image,) = owners_of_rows(self.annotations, np.array([row])).tolist()
        identity = self.annotation_ids[self.places[row]]
        return (
            f"annotation {f'number {self.places[row]}' if identity is None else identity} of {self.image_label(image)}"
        )

    def image_label(self, index: int) -> str:
        return f"image {self.annotations.image_ids[index]} ({self.annotations.file_name(index)})"


def check_set(
    name: str,
    path: Path,
    image_folder: Path,
    *,
    min_side: int,
    max_side: int,
    max_pixels: int,
    exif: str,
    white_level: int,
    anchor_shapes: AnchorShapes,
    tiling: TrainTiles,
    is_trained_on: bool,
    findings: Findings,
) -> CheckedSet:
    """Reads the annotation file `path`, and adds to `findings` the entries that training refuses or that look wrong."""
    content = read_json(path)
    annotations, places = check_annotations(
        path, content, lambda error: findings.add(name, error.kind, [str(error).removeprefix(f"{path}: ")])
    )
    annotations = annotations._replace(fingerprint=digest_of(path))
    headers = read_headers(annotations, image_folder)
    dataset = CocoDataset(
        upright_annotations(annotations, headers) if exif == UPRIGHT else annotations,
        image_folder,
        min_side,
        max_side,
        max_pixels,
        exif=exif,
        white_level=white_level,
        headers=headers,
    )
    entries = content.get("annotations") or []
    checked = CheckedSet(
        name,
        annotations,
        dataset,
        file_names=[image.get("file_name") for image in content["images"]],
        annotation_ids=[entry.get("id") for entry in entries],
        places=places,
        sources=[_source_of(entry) for entry in entries],
    )
    _check_names_and_ids(checked, findings)
    if is_trained_on or has_objects(annotations):
        _check_boxes(checked, findings)
        _check_classes_and_images(checked, findings)
    if is_trained_on:
        _check_whether_learnable(checked, findings, anchor_shapes, tiling)
    elif not has_objects(annotations):
        findings.add(name, "set_without_objects", [f"{path}{placeholder_note(annotations)}"])
    return checked


def _source_of(entry: dict[str, Any]) -> str:
    """Returns who or what made an annotation, from the first of SOURCE_KEYS that it has; "" if it has none."""
    return next((str(entry[key]) for key in SOURCE_KEYS if isinstance(entry.get(key), str | int)), "")


def _check_whether_learnable(checked: CheckedSet, findings: Findings, shapes: AnchorShapes, tiling: TrainTiles) -> None:
    path = checked.annotations.path
    try:
        require_objects(checked.dataset)
        require_reach(checked.dataset, shapes=shapes, tiling=tiling)
    except DataFault as error:
        findings.add(checked.name, error.kind, [str(error).removeprefix(f"{path}: ")])
    else:
        if one_box_for_all(checked.annotations):
            findings.add(checked.name, "one_box_for_all", [f"bbox {checked.annotations.boxes[0].tolist()}"])


def _check_names_and_ids(checked: CheckedSet, findings: Findings) -> None:
    annotations = checked.annotations
    _add_repeated(
        checked,
        findings,
        "category_name_twice",
        annotations.class_names,
        lambda label: f"category {annotations.category_ids[label]} ({annotations.class_names[label]})",
    )
    files = [os.path.normpath(annotations.file_name(row)) for row in range(len(annotations.file_names))]
    _add_repeated(checked, findings, "file_twice", files, checked.image_label)
    # Ids may be any JSON value; annotations without an id are not duplicates.
    ids = [repr(identity) for identity in checked.annotation_ids if identity is not None]
    _add_repeated(checked, findings, "annotation_id_twice", ids, lambda place: f"annotation {ids[place]}")


def _check_boxes(checked: CheckedSet, findings: Findings) -> None:
    annotations, dataset = checked.annotations, checked.dataset
    boxes, is_object = annotations.boxes, ~annotations.crowds
    width, height = boxes[:, 2], boxes[:, 3]
    overhangs = dataset.overhangs()
    owners = owners_of(annotations)
    sizes = annotations.sizes[owners]

    def add(kind: str, mask: np.ndarray, describe: Callable[[int], str], shown: int = MOST_EXAMPLES) -> None:
        rows = np.flatnonzero(mask)
        examples = [f"{checked.label(row)}: {describe(row)}" for row in rows[:shown].tolist()]
        findings.add(checked.name, kind, examples, len(rows))

    def box(row: int) -> str:
        return f"bbox {boxes[row].tolist()} in {sizes[row, 0]} x {sizes[row, 1]} pixels (height x width)"

    empty = is_object & ((width <= 0) | (height <= 0))
    add("box_empty", empty, box)
    add("box_outside", is_object & ~dataset.is_learned & ~empty, box)
    past_border = dataset.is_learned & (overhangs > 0)
    as_corners = np.zeros(len(boxes), bool)
    as_corners[is_object] = corners_for_sizes(boxes[is_object], sizes[is_object])
    add("box_as_corners", as_corners, box)
    add("box_clipped", past_border & (overhangs >= 1), box)
    add("box_rounded", past_border & (overhangs < 1), box, shown=0)
    add("crowd", annotations.crowds, box)

    scaled = dataset.learned(np.arange(len(boxes))).boxes
    tiny = np.zeros(len(boxes), bool)
    tiny[dataset.is_learned] = (scaled[:, 2:] - scaled[:, :2]).min(axis=1) < 1
    add("box_tiny", tiny, box)
    areas = annotations.areas
    too_large = areas > AREA_ROUNDING * (width + 1) * (height + 1)
    add("area_too_large", too_large, lambda row: f"area {areas[row]:g}, bbox {boxes[row].tolist()}")
    twice = np.zeros(len(boxes), bool)
    twice[is_object] = _repeats(np.column_stack([owners, annotations.labels, boxes])[is_object])
    add("object_twice", twice, lambda row: f"bbox {boxes[row].tolist()}")


def _check_classes_and_images(checked: CheckedSet, findings: Findings) -> None:
    annotations, is_learned = checked.annotations, checked.dataset.is_learned
    counts = np.bincount(annotations.labels[is_learned], minlength=len(annotations.class_names)).tolist()
    named = sorted(zip(counts, annotations.class_names, strict=True))
    findings.add(checked.name, "class_without_objects", [name for count, name in named if not count])
    findings.add(checked.name, "class_scarce", [f"{name}: {count}" for count, name in named if 0 < count < SCARCE])
    before = np.concatenate([[0], np.cumsum(is_learned)])
    bare = np.flatnonzero(np.diff(before[annotations.first]) == 0)
    examples = [checked.image_label(row) for row in bare[:MOST_EXAMPLES]]
    findings.add(checked.name, "image_without_objects", examples, len(bare))


def _add_repeated(
    checked: CheckedSet, findings: Findings, kind: str, values: list[str], label: Callable[[int], str]
) -> None:
    """Adds a finding for each of `values` that equals an earlier value."""
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        if (earlier := first.setdefault(value, place)) != place:
            findings.add(checked.name, kind, [f"{label(place)} repeats {label(earlier)}"])


def _repeats(keys: np.ndarray) -> np.ndarray:
    """Marks the rows of `keys` [n, columns] that equal an earlier row: bool [n]."""
    order = np.lexsort(keys.T)  # stable: the first of equal rows stays the first
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    return repeated

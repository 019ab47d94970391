"""Adapts a dataset to what a format can express, notes what that changes, and refuses what can't be adapted."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from retinanet.coco.folder import SETS
from retinanet.coco.formats import WORDS
from retinanet.coco.json_values import is_text
from retinanet.convert.sets import (
    Box,
    Labelled,
    LabelledImage,
    LabelledSet,
    require_unique,
    size_of,
    with_distinct_names,
)
from retinanet.convert.write_coco import with_entries
from retinanet.data.images import image_suffixes
from retinanet.runtime.errors import UserError, either
from retinanet.settings.convert import COCO, CSV, VOC, YOLO

WITHOUT_CROWDS = (YOLO, CSV)
NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LEAST_SIDE = 1e-3  # pixels; a narrower box has no area
LEAST_SHARE = 1e-6  # of the image's side: YOLO's numbers have six decimal places


def fitted(labelled: Labelled, kind: str, source: Path) -> Labelled:
    """Returns the dataset adapted to what the format `kind` can express; its notes say what was changed.

    Raises UserError, naming the `source` or an image, if classes, names or sets can't be expressed.
    """
    if kind != YOLO:
        for image in _images(labelled.sets):
            _require_text(image.name, f"{image.path}: the name {image.name!r}", kind)
    if kind == COCO:
        _require_distinct_files(labelled)
        labelled, more = with_entries(labelled)
        return labelled._replace(notes=[*labelled.notes, *more])
    _require_classes(labelled, kind, source)
    notes = [*labelled.notes]
    if kind == VOC:  # one folder has the images of all sets
        labelled, more = with_distinct_names(labelled)
        notes += more
    _require_distinct_files(labelled)
    if kind in (YOLO, VOC):
        _require_sets(labelled, kind, source)
        _require_distinct_stems(labelled, kind)
    for image in _images(labelled.sets):
        if kind != CSV and Path(image.name).suffix.lower() not in image_suffixes():
            raise UserError(
                f"{image.path}: {WORDS[kind]} finds images by their suffix, such as .jpg, which "
                f"{Path(image.name).name!r} doesn't have. Rename it."
            )
    _require_sizes(labelled, source)
    changes = _Changes()
    sets = [
        labelled_set._replace(images=[changes.fitted(image, kind) for image in labelled_set.images])
        for labelled_set in labelled.sets
    ]
    return labelled._replace(sets=sets, notes=[*notes, *changes.notes()])


class _Changes:
    """Counts the boxes that a format can't express as they are, and notes an example image for each kind of change."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def fitted(self, image: LabelledImage, kind: str) -> LabelledImage:
        boxes = []
        for box in image.boxes:
            inside = clipped(box, image)
            if box.is_crowd and kind in WITHOUT_CROWDS:
                self._count("crowds are left out, as the format has none", image)
            elif inside is None:
                self._count("boxes without area inside their image are left out", image)
            else:
                boxes.append(inside)
                if inside is not box and max(abs(a - b) for a, b in zip(inside[1:5], box[1:5], strict=True)) > 1e-3:
                    self._count("boxes that reach past the border of their image are clipped", image)
        return image._replace(boxes=boxes)

    def _count(self, what: str, image: LabelledImage) -> None:
        self.counts[what] += 1
        self.examples.setdefault(what, image.name)

    def notes(self) -> list[str]:
        return [f"{what}: {count}, as in {self.examples[what]}" for what, count in self.counts.items()]


def clipped(box: Box, image: LabelledImage) -> Box | None:
    """Returns the part of the box inside the image, or None if that part has no area. A box that fits is unchanged."""
    right, bottom = box.left + box.width, box.top + box.height
    if box.left < 0 or box.top < 0 or right > image.width or bottom > image.height:
        left, top = max(box.left, 0.0), max(box.top, 0.0)
        right, bottom = min(right, image.width), min(bottom, image.height)
        box = box._replace(left=left, top=top, width=right - left, height=bottom - top)
    has_area = box.width >= max(LEAST_SIDE, LEAST_SHARE * image.width) and (
        box.height >= max(LEAST_SIDE, LEAST_SHARE * image.height)
    )
    return box if has_area else None


def _images(sets: Iterable[LabelledSet]) -> list[LabelledImage]:
    return [image for labelled_set in sets for image in labelled_set.images]


def _require_classes(labelled: Labelled, kind: str, source: Path) -> None:
    if not labelled.class_names:
        raise UserError(f"{source}: has no classes, and {WORDS[kind]} needs one. Add them.")
    ids = labelled.category_ids
    for number, name in enumerate(labelled.class_names):
        if ids and (earlier := labelled.class_names.index(name)) != number:
            raise UserError(
                f"{source}: the categories {ids[earlier]} and {ids[number]} are both called {name!r}, and "
                f"{WORDS[kind]} has no ids to tell them apart. Merge them, or give each its own name."
            )
        if kind != YOLO:
            _require_text(name, f"{source}: the class {name!r}", kind)
    require_unique(labelled.class_names, str(source))


def _require_sizes(labelled: Labelled, source: Path) -> None:
    """Raises UserError if an image and its COCO entry differ in size; other formats' readers check sizes themselves."""
    for image in _images(labelled.sets):
        if image.entry is None:
            continue
        width, height = size_of(image.path, str(source))
        if (width, height) != (image.width, image.height):
            raise UserError(
                f"{source}: says that {image.name} is {image.width} x {image.height}, but {image.path} is {width} x "
                f"{height} (width x height). Use the image that was annotated, or correct the size."
            )


def _require_text(text: str, what: str, kind: str) -> None:
    """Raises UserError unless `text` can be encoded, and outside COCO is one line without spaces at either end.

    For VOC, it has to be valid in XML too.
    """
    advice = either("Rename it", "choose another --to", "leave the format out of --save")
    if not is_text(text):
        raise UserError(f"{what} isn't UTF-8, which {WORDS[kind]} needs. {advice}.")
    if kind == COCO:
        return
    if text != text.strip() or len(text.splitlines()) > 1 or (kind == VOC and NOT_IN_XML.search(text)):
        raise UserError(
            f"{what} begins or ends with a space, or has a line break or control character, which {WORDS[kind]} "
            f"can't hold. {advice}."
        )


def _require_sets(labelled: Labelled, kind: str, source: Path) -> None:
    for labelled_set in labelled.sets:
        if labelled_set.name not in SETS:
            advice = either("rename its file", "name it with --set", "divide its images with --split")
            raise UserError(
                f"{source}: has a set {labelled_set.name!r}, and {WORDS[kind]} has only {', '.join(SETS)}. "
                f"{advice[:1].upper()}{advice[1:]}."
            )


def _require_distinct_files(labelled: Labelled) -> None:
    for labelled_set in labelled.sets:
        places: dict[str, Path] = {}
        for image in labelled_set.images:
            if image.name in places:
                raise UserError(
                    f"{image.path}: {places[image.name]} has the same name in the set {labelled_set.name}. Rename one "
                    "of the two, or split one set at a time."
                )
            places[image.name] = image.path


def _require_distinct_stems(labelled: Labelled, kind: str) -> None:
    """Raises UserError if two images would share an annotation file because their names differ only in the suffix."""
    for group in [labelled.sets] if kind == VOC else [[labelled_set] for labelled_set in labelled.sets]:
        places: dict[Path, Path] = {}
        for image in _images(group):
            stem = Path(image.name).with_suffix("")
            if stem in places:
                raise UserError(
                    f"{image.path}: {places[stem]} has the same name without its suffix, and {WORDS[kind]} has "
                    "one annotation file for both. Rename one of the two."
                )
            places[stem] = image.path

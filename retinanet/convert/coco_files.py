"""Reads COCO annotations, for splitting or for writing in another format."""

from pathlib import Path
from typing import Any

import numpy as np

from retinanet.coco.annotations import Annotations, check_annotations, require_same_classes
from retinanet.coco.folder import SETS, find_annotation_file, find_image_folder
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.runtime.errors import UserError
from retinanet.runtime.json_files import read_json
from retinanet.runtime.missing_files import why_missing
from retinanet.settings.shared import UPRIGHT


def read_coco(source: Path, _exif: str = UPRIGHT) -> Labelled:
    """Reads the sets of a data folder, or the set of one annotation file, with the sizes in the file.

    Raises UserError, which names the mistake.
    """
    if source.is_file():
        files = {source.stem: (source, _images_beside(source))}
    else:
        files = {}
        for name in SETS:
            try:
                files[name] = find_annotation_file(source, name), find_image_folder(source, name)
            except UserError:
                continue
        if not files:
            find_annotation_file(source, SETS[0])  # raises UserError, whose message lists the existing sets
    return read_files(files)


def read_files(files: dict[str, tuple[Path, Path]]) -> Labelled:
    """Reads a set from each annotation file and its image folder. Raises UserError, which names the mistake."""
    sets, first = [], None
    for name, (file, folder) in files.items():
        content = read_json(file)
        annotations, places = check_annotations(file, content)
        first = first or annotations
        require_same_classes(annotations, first.class_names, first.category_ids, first.path)
        others = {key: value for key, value in content.items() if key not in ("images", "annotations")}
        sets.append(LabelledSet(name, _images(annotations, folder, content, places), others))
    assert first is not None
    return Labelled(first.class_names, sets, first.category_ids)


def _images_beside(file: Path) -> Path:
    """Returns the image folder of `file`: as in a data folder, or images/ beside the file, or the file's own folder."""
    for root in (file.parent, file.parent.parent):
        try:
            return find_image_folder(root, file.stem.removeprefix("instances_"))
        except UserError:
            continue
    return file.parent / "images" if (file.parent / "images").is_dir() else file.parent


def _images(annotations: Annotations, folder: Path, content: dict[str, Any], places: np.ndarray) -> list[LabelledImage]:
    images = []
    columns = (annotations.labels, *annotations.boxes.T, annotations.crowds)
    boxes = [Box(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    entries = [content["annotations"][place] for place in places]
    for index, (height, width) in enumerate(annotations.sizes.tolist()):
        name = annotations.file_name(index)
        rows = slice(annotations.first[index], annotations.first[index + 1])
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"{annotations.path}: its image {name} is not in {folder}.{why_missing(path)} Put it there."
            )
        image_id, entry = int(annotations.image_ids[index]), content["images"][index]
        images.append(LabelledImage(path, name, width, height, boxes[rows], image_id, entry, entries[rows]))
    return images

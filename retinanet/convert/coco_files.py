"""Reads COCO annotations, for splitting or for writing in another format."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from retinanet.coco.annotation_entries import leaves_folder
from retinanet.coco.annotations import Annotations, check_annotations, require_same_classes
from retinanet.coco.folder import (
    KINDS,
    SETS,
    WITHOUT_SPLIT,
    find_annotation_file,
    find_image_folder,
    known_set,
    set_told_by,
    spellings_of,
)
from retinanet.coco.formats import ROBOFLOW
from retinanet.coco.json_values import is_id, is_number
from retinanet.convert.image_files import NO_SET, ImageFinder
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.convert.shapes import DECIMALS, around_rotated
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.json_files import read_json

IMAGE_FOLDERS = ("images", "data", "images/default", "")


def read_coco(reading: Reading) -> Labelled:
    """Reads the sets of a folder, or the set of one annotation file.

    Mistakes in individual entries are added to `reading`; any other mistake raises a UserError that names it.
    """
    files = _only_set(reading.source, reading) if reading.source.is_file() else _files(reading)
    contents: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        contents[name] = read_json(file)
        reading.tree.read(file)
    export = _export(files, contents)
    _without_project(reading, contents)
    read: dict[str, tuple[Annotations, np.ndarray, dict[str, Path], Path]] = {}
    for name, file in files.items():
        folders = _image_folders(reading, file, name)
        images = _find_images(reading, file, folders, contents[name])
        looked_in = folders[0] if folders else reading.root
        read[name] = *_checked(reading, file, contents[name]), images, looked_in
    first = next(iter(read.values()))[0]
    for annotations, *_ in read.values():
        require_same_classes(annotations, first.class_names, first.category_ids, first.path)
    sets = []
    for name, parts in read.items():
        others = {key: value for key, value in contents[name].items() if key not in ("images", "annotations")}
        sets.append(LabelledSet(name, _images(reading, *parts, contents[name]), others, files[name]))
    for file in reading.files(".json"):
        if not reading.tree.is_read(file):
            reading.tree.leave(file, "JSON that doesn't define a set")
    return Labelled(first.class_names, sets, first.category_ids, notes=reading.notes, export=export)


def _files(reading: Reading) -> dict[str, Path]:
    """Returns each set's annotation file, located by a layout that training reads or, failing that, by file names."""
    root = reading.source
    files = {}
    for name in SETS:
        try:
            files[name] = find_annotation_file(root, name)
        except UserError:
            continue
    kind = re.compile(f"^({'|'.join(KINDS)})_")
    places = (root, root / "annotations")
    others = [path for path in reading.files(".json") if path.parent in places or path.name == ROBOFLOW]
    others.sort(key=lambda path: next((place for place, each in enumerate(KINDS) if path.name.startswith(each)), -1))
    for path in others:
        if set_name := known_set(kind.sub("", path.stem)):
            files.setdefault(set_name, path)
    if files or (files := _told_sets(others, reading)):
        return {name: files[name] for name in SETS if name in files}
    unnamed = [path for path in others if kind.sub("", path.stem) in WITHOUT_SPLIT or path.name == ROBOFLOW]
    unnamed = unnamed or others
    if len(unnamed) != 1:
        find_annotation_file(root, SETS[0])  # raises UserError, whose message lists the existing sets
    return _only_set(unnamed[0], reading)


def _only_set(file: Path, reading: Reading) -> dict[str, Path]:
    name = set_told_by(file)
    if name is None and not reading.told.set:
        reading.notes.append(NO_SET)
    return {name or "train": file}


def _told_sets(files: list[Path], reading: Reading) -> dict[str, Path]:
    """Returns the annotation file of each set, recognised by the name of the file or of its folder.

    Raises UserError if two files seem to belong to the same set.
    """
    sets: dict[str, Path] = {}
    for file in files:
        if (name := set_told_by(file)) and sets.setdefault(name, file) != file:
            raise UserError(
                f"{reading.source}: both {sets[name]} and {file} may be the set {name}. Use the path of one of them."
            )
    return sets


def _export(files: dict[str, Path], contents: dict[str, Any]) -> str:
    names = {file.name for file in files.values()}
    if ROBOFLOW in names:
        return "Roboflow's COCO"
    if "instances_default.json" in names or any(
        "occluded" in entry["attributes"]
        for content in contents.values()
        for entry in _entries(content, "annotations")[:1]
        if isinstance(entry.get("attributes"), dict)
    ):
        return "CVAT's COCO 1.0"
    return "Label Studio's COCO" if names == {"result.json"} else ""


def _entries(content: Any, key: str) -> list[dict[str, Any]]:
    """Returns the list under `key` in the content, or an empty list if it is malformed (see check_annotations)."""
    entries = content.get(key) if isinstance(content, dict) else None
    return entries if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) else []


def _without_project(reading: Reading, contents: dict[str, Any]) -> None:
    """Removes category 0, Roboflow's project name, if it has no objects and is the supercategory of all others."""
    categories = [category for content in contents.values() for category in _entries(content, "categories")]
    is_used = any(
        entry.get("category_id") == 0 for content in contents.values() for entry in _entries(content, "annotations")
    )
    groups = {str(category.get("supercategory")) for category in categories if category.get("id") != 0}
    projects = {str(category.get("name")) for category in categories if category.get("id") == 0}
    if not is_used and projects and groups == projects:
        reading.notes.append(f"category 0 ({projects.pop()}) is the group of all others and has no objects: left out")
        for content in contents.values():
            content["categories"] = [each for each in content["categories"] if each.get("id") != 0]


def _checked(reading: Reading, file: Path, content: Any) -> tuple[Annotations, np.ndarray]:
    """Checks the content, replaces rotated boxes with the upright boxes around them, and drops faulty categories.

    Returns the annotations and their indices in the file's list, int64 [T].
    """
    num_turned = 0
    for entry in _entries(content, "annotations"):
        attributes, box = entry.get("attributes"), entry.get("bbox")
        rotation = attributes.get("rotation") if isinstance(attributes, dict) else 0
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            continue
        if isinstance(attributes, dict) and is_number(rotation) and rotation % 360:
            left, top, width, height = box
            entry["bbox"] = [round(side, DECIMALS) for side in around_rotated(left, top, width, height, rotation)]
            entry["attributes"] = {key: value for key, value in attributes.items() if key != "rotation"}
            num_turned += 1
    if num_turned:
        reading.notes.append(f"rotated boxes are read as the upright boxes around them: {num_turned}")

    def refuse(fault: DataFault) -> None:
        with reading.mistakes_collected():
            raise DataFault(fault.kind.replace("_", " "), fault.message)

    annotations, places = check_annotations(file, content, refuse)
    first: dict[int, dict[str, Any]] = {}
    for category in content["categories"]:
        if is_id(category.get("id")):
            first.setdefault(category["id"], category)
    content["categories"] = [category for key, category in first.items() if key in annotations.category_ids]
    return annotations, places


def _image_folders(reading: Reading, file: Path, name: str) -> list[Path]:
    """Returns the folders that may contain the images of a set, the most likely first."""
    if reading.told.image_path:
        return [reading.told.image_path]
    if reading.source.is_dir():
        folders = [*_set_folders(reading.source, file, name)]
        folders += [root / below for root in (file.parent, reading.source) for below in IMAGE_FOLDERS]
    else:
        # The folder above may be a data folder with pictures of its own, unless the file is in a folder annotations.
        above = [file.parent.parent] if file.parent.name.lower().startswith("annotation") else []
        folders = []
        for root in (file.parent, *above):
            folders += [*_set_folders(root, file, name), *(root / below for below in IMAGE_FOLDERS)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _set_folders(root: Path, file: Path, name: str) -> Iterator[Path]:
    """Yields the folders in `root` that are called like the set `name`, or like its annotation file."""
    plain = re.sub(f"^({'|'.join(KINDS)})_", "", file.stem)
    for set_name in dict.fromkeys((plain, name, *spellings_of(name))):
        try:
            yield find_image_folder(root, set_name)
        except UserError:
            continue


def _find_images(reading: Reading, file: Path, folders: list[Path], content: Any) -> dict[str, Path]:
    """Finds the image of each entry, and strips URL and folder prefixes from file_name if necessary.

    Returns the paths of the images, keyed by the new file names.
    """
    finder, top = ImageFinder(reading), reading.told.image_path
    images: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for entry in _entries(content, "images"):
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            continue
        names = plain_names(file_name)
        place = next(
            (
                (text, near)
                for text in (names if top is None else names[:1])  # below --image_path, the folders of a name count
                for folder in folders
                if (near := reading.tree.find(folder / text)) and near.is_file()
            ),
            None,
        )
        if place is None and top is not None:
            with reading.mistakes_collected():
                found = (finder.find(name, file, str(file), by_annotation=False) for name in names)
                if path := next(filter(None, found), None):
                    place = path.relative_to(top).as_posix(), path
        if place is None:
            if leaves_folder(file_name):  # so that the image counts as missing, and the message suggests --image_path
                entry["file_name"] = PurePosixPath(file_name).name
            continue
        text, path = place
        if owners.setdefault(path, file_name) != file_name:
            reading.mistakes.setdefault("names of several images", []).append(
                f"{file}: only {path} is there for {owners[path]} and {file_name}. Put both images there."
            )
        entry["file_name"] = text
        images[text] = path
    if len({text.removeprefix("images/") for text in images}) == len(images):
        for entry in _entries(content, "images"):
            if isinstance(name := entry.get("file_name"), str) and name in images:
                entry["file_name"] = name.removeprefix("images/")
        images = {text.removeprefix("images/"): path for text, path in images.items()}
    return images


def plain_names(file_name: str) -> list[str]:
    """Returns the relative paths that `file_name` may stand for, longest first.

    Label Studio writes URLs such as /data/upload/1/a.jpg and /data/local-files/?d=images/a.jpg.
    """
    texts = [file_name, file_name.replace("\\", "/")]
    if "://" in file_name or file_name.startswith("/data/") or "%" in file_name:
        try:
            address = urlsplit(file_name)
            texts += [*parse_qs(address.query).get("d", []), unquote(address.path)]
        except ValueError:  # not a URL after all
            pass
    names = []
    for text in texts:
        parts = PurePosixPath(text).parts
        names += ["/".join(parts[start:]) for start in range(len(parts))]
    return [name for name in dict.fromkeys(names) if not name.startswith("/") and ".." not in name.split("/")]


def _images(
    reading: Reading,
    annotations: Annotations,
    places: np.ndarray,
    paths: dict[str, Path],
    folder: Path,
    content: dict[str, Any],
) -> list[LabelledImage]:
    """Returns the images with their boxes; a missing image is noted as a mistake that names its path in `folder`."""
    images = []
    columns = (annotations.labels, *annotations.boxes.T, annotations.crowds)
    boxes = [Box(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    image_entries: dict[Any, dict[str, Any]] = {}
    for entry in content["images"]:
        image_entries.setdefault(entry.get("id") if is_id(entry.get("id")) else None, entry)
    box_entries = [content["annotations"][place] for place in places]
    for index, (height, width) in enumerate(annotations.sizes.tolist()):
        name = annotations.file_name(index)
        rows = slice(annotations.first[index], annotations.first[index + 1])
        with reading.mistakes_collected():
            if name not in paths:
                raise reading.missing_image(name, str(annotations.path), folder / name)
            reading.tree.read(paths[name])
            image_id = int(annotations.image_ids[index])
            of_file = image_id, image_entries[image_id], box_entries[rows]
            images.append(LabelledImage(paths[name], name, width, height, boxes[rows], *of_file))
    return images

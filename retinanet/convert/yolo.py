"""Reads YOLO annotations: data.yaml, and a text file in labels/, with a line per object, for each image in images/."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinanet.coco.folder import SETS, set_name_of, spellings_of
from retinanet.convert.sets import (
    Box,
    Labelled,
    LabelledImage,
    LabelledSet,
    require_unique,
    size_of,
    text_of,
)
from retinanet.data.images import image_suffixes
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import UPRIGHT

SLACK = 0.01  # rounding may carry a box past its image by this fraction of the side
DECIMALS = 3  # decimal places of pixel values computed from fractions


def read_yolo(source: Path, exif: str = UPRIGHT) -> Labelled:
    """Reads the sets of a data.yaml, given by the path of the file or of its folder. For `exif`, see size_of.

    Raises UserError, which names the file and line of the mistake.
    """
    file = source if source.is_file() else _yaml_in(source)
    content = _yaml(file)
    names = _class_names(content, file)
    root = _root(content, file)
    sets = []
    for name in (spelling for set_name in SETS for spelling in spellings_of(set_name)):
        if content.get(name):
            files = _images(content[name], root, file, name)
            images = [_labelled(path, below, len(names), exif) for path, below in files]
            sets.append(LabelledSet(set_name_of(name), images))
    if not sets:
        raise UserError(f"{file}: names no set. Add a line such as train: images/train")
    without = sum(not _label_file(image.path).exists() for labelled_set in sets for image in labelled_set.images)
    notes = [f"{without} images have no label file, so they have no objects"] if without else []
    return Labelled(names, sets, notes=notes)


def _yaml_in(folder: Path) -> Path:
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if len(files) == 1:
        return files[0]
    named = [file for file in files if file.stem in ("data", "dataset")]
    if len(named) == 1:
        return named[0]
    if files:
        raise UserError(f"{folder}: has {len(files)} YAML files. Use the path of the file that lists the classes.")
    raise UserError(
        f"{folder}: has no data.yaml, which lists the classes and sets. Write one, such as:  train: images/train  "
        "val: images/val  names: [cat, dog]  (each on a line)"
    )


def _yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise UserError(f"{file}: reading it needs PyYAML. Install it with: pip install pyyaml") from None
    try:
        content = yaml.safe_load(text_of(file))
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{file}{line}: is not YAML ({getattr(fault, 'problem', fault)}). Correct the file.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no names: and train: lines. Add them.")
    return content


def _class_names(content: dict[str, Any], file: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{file}: the numbers in names: have gaps. Number the classes 0, 1, 2 ...")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: has no list of classes. Add a line such as names: [cat, dog]")
    texts = [str(name) for name in names]
    require_unique(texts, str(file))
    if "nc" in content and content["nc"] != len(texts):
        raise UserError(f"{file}: says nc: {content['nc']}, but names {len(texts)} classes. Correct one of them.")
    return texts


def _root(content: dict[str, Any], file: Path) -> Path:
    """Returns the folder that paths in `file` are relative to: `path:`, if that exists, or the file's own folder."""
    path = content.get("path")
    if path is None:
        return file.parent
    places = [Path(str(path)), file.parent / str(path)]
    return next((place for place in places if place.is_dir()), file.parent)


def _images(value: Any, root: Path, file: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yields the images of a set, each with its name relative to the set's folder."""
    suffixes = image_suffixes()
    for text in value if isinstance(value, list) else [value]:
        place = _place(str(text), root)
        if place is None:
            raise UserError(f"{file}: {name}: names {text}, and there is no such folder or list. Correct the path.")
        if place.is_file():
            listed = _listed(place, root)
            folder = Path(os.path.commonpath([path.parent for path in listed])) if listed else root
            images = [(path, path.relative_to(folder).as_posix()) for path in listed]
        else:
            files = sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes)
            images = [(path, path.relative_to(place).as_posix()) for path in files]
        if not images:
            raise UserError(f"{file}: {name}: names {text}, and no images are there. Put them there.")
        yield from images


def _place(text: str, root: Path) -> Path | None:
    """Resolves a path in data.yaml. Roboflow's paths begin with ../, although the folders are next to the file."""
    places = [Path(text), root / text, root / text.removeprefix("../")]
    return next((place for place in places[1 - Path(text).is_absolute() :] if place.exists()), None)


def _listed(file: Path, root: Path) -> list[Path]:
    """Returns the paths of the images listed in `file`."""
    paths = []
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if text := line.strip():
            places = [Path(text), root / text, file.parent / text]
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise UserError(f"{file}:{number}: there is no image {text}. Put it there, or remove the line.")
            paths.append(path.resolve())
    return paths


def _label_file(image: Path) -> Path:
    """Returns the path of the image's label file: with labels/ in place of the last images/, or next to the image."""
    parts = list(image.parts)
    places = [number for number, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _labelled(image: Path, name: str, num_classes: int, exif: str) -> LabelledImage:
    width, height = size_of(image, str(image), exif)
    file = _label_file(image)
    boxes = []
    if file.exists():
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if line.strip():
                boxes.append(_box(line.split(), (width, height), num_classes, f"{file}:{number}"))
    return LabelledImage(image, name, width, height, boxes)


def _box(words: list[str], size: tuple[int, int], num_classes: int, where: str) -> Box:
    """Parses a line: the class, then a box or the points of a polygon, which is replaced by its bounding box.

    A box is given as centre x, centre y, width and height. All coordinates are fractions of the image.
    """
    if len(words) != 5 and not (len(words) >= 7 and len(words) % 2):
        raise UserError(f"{where}: has {len(words)} numbers. A box has 5: class, centre x, centre y, width, height.")
    if not words[0].isdecimal() or int(words[0]) >= num_classes:
        raise UserError(
            f"{where}: class {words[0]!r} is not a number from 0 to {num_classes - 1}, as in data.yaml. Correct it."
        )
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError as fault:
        raise UserError(f"{where}: {fault}. Write fractions of the image, such as 0.5.") from None
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{where}: has a number that is not finite. Write fractions of the image, such as 0.5.")
    if outside := [number for number in numbers if not -SLACK <= number <= 1 + SLACK]:
        raise UserError(f"{where}: {outside[0]:g} is not from 0 to 1. Write fractions of the image, not pixels.")
    if len(numbers) == 4:
        x, y, wide, high = numbers
        left, top = x - wide / 2, y - high / 2
    else:
        left, top = min(numbers[::2]), min(numbers[1::2])
        wide, high = max(numbers[::2]) - left, max(numbers[1::2]) - top
    if wide <= 0 or high <= 0:
        raise UserError(f"{where}: the box has no area. Remove the line, or correct its width and height.")
    width, height = size
    x, y, wide, high = (round(number, DECIMALS) for number in (left * width, top * height, wide * width, high * height))
    return Box(int(words[0]), x, y, wide, high)

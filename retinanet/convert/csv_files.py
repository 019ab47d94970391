"""Reads CSV annotations: a row path,x1,y1,x2,y2,class per object, and optionally a file of rows class,number."""

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

from retinanet.coco.folder import CSV_COLUMNS, set_name_of
from retinanet.convert.sets import (
    Box,
    Labelled,
    LabelledImage,
    LabelledSet,
    require_unique,
    size_of,
    text_of,
)
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import UPRIGHT

Row = tuple[str, list[str]]  # "file:line" for messages, and the columns


def read_csv(source: Path, exif: str = UPRIGHT) -> Labelled:
    """Reads the sets of a folder, one per file, or the set of a single file.

    Image paths are relative to the folder of the CSV file. A row with only a path is an image without objects. A file
    with two columns numbers the classes; without such a file, classes are sorted by name. Raises UserError, which names
    the file and line of the mistake.
    """
    folder = source.parent if source.is_file() else source
    tables = {path: list(_rows(path)) for path in sorted(folder.glob("*.csv"))}
    lists = [path for path, rows in tables.items() if rows and len(rows[0][1]) == 2]
    if len(lists) > 1:
        raise UserError(
            f"{folder}: {lists[0].name} and {lists[1].name} both have two columns. Keep one list of classes."
        )
    files = [source] if source.is_file() else [path for path in tables if path not in lists]
    if source in lists:
        raise UserError(f"{source}: is a list of classes. Use the file with the rows path,x1,y1,x2,y2,class.")
    if not files:
        raise UserError(f"{folder}: has no CSV file of annotations. Add one with the rows path,x1,y1,x2,y2,class.")
    rows_of = {path: [_checked(row) for row in tables[path]] for path in files}
    if lists:
        names = _class_list(tables[lists[0]], lists[0])
    else:
        names = sorted({words[5] for rows in rows_of.values() for _, words in rows if words[5]})
    if not names:
        raise UserError(f"{files[0]}: has no object, so there are no classes. Add a file with rows class,number.")
    sets = [LabelledSet(set_name_of(path.stem), _images(path, rows, names, exif)) for path, rows in rows_of.items()]
    return Labelled(names, sets)


def _rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(text_of(path).splitlines(), strict=True)
    try:
        for words in reader:
            if words:
                yield f"{path}:{reader.line_num}", [word.strip() for word in words]
    except csv.Error as fault:
        raise UserError(f"{path}:{reader.line_num}: is not CSV ({fault}). Correct the line.") from None


def _checked(row: Row) -> Row:
    where, words = row
    if len(words) != CSV_COLUMNS:
        raise UserError(f"{where}: has {len(words)} columns, not {CSV_COLUMNS}. Write path,x1,y1,x2,y2,class.")
    if not words[0]:
        raise UserError(f"{where}: doesn't name an image. Write its path into the first column.")
    if any(words[1:]) and not all(words):
        raise UserError(
            f"{where}: a part of the box or its class is missing. Add it, or leave all five empty for an image without "
            "objects."
        )
    return row


def _class_list(rows: list[Row], path: Path) -> list[str]:
    numbers: dict[int, str] = {}
    for where, words in rows:
        if len(words) != 2 or not words[1].isdecimal():
            raise UserError(f"{where}: is not a row class,number. Correct the row.")
        if int(words[1]) in numbers:
            raise UserError(
                f"{where}: number {words[1]} already belongs to {numbers[int(words[1])]!r}. Give each class its own "
                "number."
            )
        numbers[int(words[1])] = words[0]
    if sorted(numbers) != list(range(len(numbers))):
        raise UserError(f"{path}: the numbers of the classes have gaps. Number them 0, 1, 2 ...")
    names = [numbers[number] for number in range(len(numbers))]
    require_unique(names, str(path))
    return names


def _images(path: Path, rows: list[Row], names: list[str], exif: str) -> list[LabelledImage]:
    if not rows:
        raise UserError(f"{path}: is empty. Add rows path,x1,y1,x2,y2,class, or remove the file.")
    wheres: dict[Path, str] = {}
    boxes: dict[Path, list[Box]] = {}
    for where, words in rows:
        image = path.parent / words[0]
        wheres.setdefault(image, where)
        boxes.setdefault(image, [])
        if words[5]:
            boxes[image].append(_box(words[1:], names, where))
    folder = Path(os.path.commonpath([image.parent for image in wheres]))
    images = []
    for image, where in wheres.items():
        width, height = size_of(image, where, exif)
        images.append(LabelledImage(image, image.relative_to(folder).as_posix(), width, height, boxes[image]))
    return images


def _box(words: list[str], names: list[str], where: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(word) for word in words[:4])
    except ValueError as fault:
        is_header = {"x1", "xmin", "x_min", "left"} & {word.lower() for word in words}
        advice = "Remove the header." if is_header else "Write pixels."
        raise UserError(f"{where}: {fault}. {advice}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise UserError(f"{where}: has a number that is not finite. Write pixels.")
    if x2 <= x1 or y2 <= y1:
        raise UserError(f"{where}: x2 or y2 is not above x1 or y1. Are these a width and a height? Correct the row.")
    if words[4] not in names:
        raise UserError(
            f"{where}: class {words[4]!r} is not in the list of classes ({', '.join(names[:10])}). Correct the row, or "
            "add the class."
        )
    return Box(names.index(words[4]), x1, y1, x2 - x1, y2 - y1)

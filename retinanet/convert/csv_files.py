"""Reads CSV annotations: a row per object, with or without a header, and optionally a file of rows class,number."""

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet.coco.folder import known_set, set_name_of
from retinanet.coco.formats import CSV_COLUMNS, csv_columns, csv_delimiter
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet, require_unique
from retinanet.convert.shapes import DECIMALS
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.text_files import open_text

ROBOFLOWS = "_annotations.csv"
COLUMNS = "path,x1,y1,x2,y2,class"


class Row(NamedTuple):
    where: str  # "file:line" for messages
    words: list[str]


def read_csv(reading: Reading) -> Labelled:
    """Reads the sets of a folder, one per file, or the set of a single file.

    Image paths are relative to the folder of the CSV file. A row with only a path is an image without objects. A file
    with two columns numbers the classes; without such a file, classes are sorted by name. Raises UserError, which names
    the mistake; mistakes in rows are added to `reading`.
    """
    source = reading.source
    folder = reading.root
    files = reading.files(".csv") if source.is_dir() else sorted(folder.glob("*.csv"))
    if source.is_file():  # other files beside it are read only if they list the classes
        files = [path for path in files if path == source or _may_be_class_list(path)]
    tables = {path: list(_rows(reading, path)) for path in files}
    lists = [path for path, rows in tables.items() if rows and len(rows[0].words) == 2]
    if len(lists) > 1:
        raise UserError(
            f"{folder}: {lists[0].name} and {lists[1].name} both have two columns. Keep one list of classes."
        )
    files = [source] if source.is_file() else [path for path in tables if path not in lists]
    if source in lists:
        raise UserError(f"{source}: is a list of classes. Use the file with the rows {COLUMNS}.")
    if not files:
        raise UserError(f"{folder}: has no CSV file of annotations. Add one with the rows {COLUMNS}.")
    rows_of = {path: _annotations(reading, path, tables[path]) for path in files}
    if lists:
        names = _class_list(tables[lists[0]], lists[0])
    else:
        names = sorted({row.words[5] for rows in rows_of.values() for row in rows if row.words[5]})
    if not names:
        reading.fail(f"{files[0]}: has no object, so there are no classes. Add a file with rows class,number.")
    are_fractions = _are_fractions([row for rows in rows_of.values() for row in rows])
    if are_fractions:
        reading.notes.append("all coordinates are from 0 to 1, so they are read as fractions of the image")
    sets = [
        LabelledSet(_set_name(path), _images(reading, path, rows, names, are_fractions))
        for path, rows in rows_of.items()
    ]
    export = "Roboflow's CSV" if any(path.name == ROBOFLOWS for path in files) else ""
    return Labelled(names, sets, notes=reading.notes, export=export)


def _set_name(path: Path) -> str:
    if path.name == ROBOFLOWS:
        return known_set(path.parent.name) or "train"
    return known_set(path.stem) or set_name_of(path.stem)


def _may_be_class_list(path: Path) -> bool:
    try:
        with open_text(path) as file:
            return len(next(csv.reader(file), [])) == 2
    except (OSError, UnicodeError, csv.Error):
        return False


def _rows(reading: Reading, path: Path) -> Iterator[Row]:
    text = reading.text(path)
    delimiter = csv_delimiter(text.partition("\n")[0])
    reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
    try:
        for words in reader:
            if words:
                yield Row(f"{path}:{reader.line_num}", [word.strip() for word in words])
    except csv.Error as fault:
        raise UserError(f"{path}:{reader.line_num}: is not CSV ({fault}). Correct the line.") from None


def _annotations(reading: Reading, path: Path, rows: list[Row]) -> list[Row]:
    """Returns the rows with the columns in the order path, x1, y1, x2, y2, class, whatever their order in the file."""
    if not rows:
        raise UserError(f"{path}: is empty. Add rows {COLUMNS}, or remove the file.")
    columns, width = csv_columns(rows[0].words), CSV_COLUMNS
    if columns:
        width, rows = len(rows[0].words), rows[1:]
    elif len(rows[0].words) > 2 and all(word[:1].isalpha() for word in rows[0].words):
        raise UserError(f"{rows[0].where}: names other columns. Call them {COLUMNS}, in any order.")
    checked = []
    for where, words in rows:
        with reading.mistakes_collected():
            if len(words) != width:
                raise DataFault(
                    "rows with a wrong number of columns",
                    f"{where}: has {len(words)} columns, not {width}. Write {COLUMNS}.",
                )
            row = Row(where, [words[column] for column in columns.order] if columns else words)
            checked.append(_checked(row, columns is not None and columns.are_sizes))
    return checked


def _checked(row: Row, are_sizes: bool) -> Row:
    """Returns the row, with sizes converted to corners."""
    where, words = row
    if not words[0]:
        raise DataFault("rows without an image", f"{where}: doesn't name an image. Write its path.")
    if any(words[1:]) and not all(words):
        raise DataFault(
            "incomplete rows",
            f"{where}: a part of the box or its class is missing. Add it, or leave all five empty for an image without "
            "objects.",
        )
    if are_sizes and words[5]:
        x, y, width, height = _numbers(words[1:5], where)
        words = [words[0], *(f"{number:.12g}" for number in (x, y, x + width, y + height)), words[5]]
    return Row(where, words)


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


def _are_fractions(rows: list[Row]) -> bool:
    """Returns True if no coordinate is above 1, as in Open Images: a file full of such boxes can't be in pixels."""
    try:
        numbers = [float(word) for row in rows if row.words[5] for word in row.words[1:5]]
    except ValueError:
        return False
    return bool(numbers) and min(numbers) >= 0 and max(numbers) <= 1


def _images(
    reading: Reading, path: Path, rows: list[Row], names: list[str], are_fractions: bool
) -> list[LabelledImage]:
    wheres: dict[Path, str] = {}
    boxes: dict[Path, list[Box]] = {}
    for where, words in rows:
        name = words[0].replace("\\", "/")
        folders = [path.parent, *([reading.told.image_path] if reading.told.image_path else []), path.parent / "images"]
        texts = [words[0], name]
        if Path(name).suffix.lower() not in reading.suffixes:  # Open Images names its files without the suffix
            texts += [f"{name}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
        places = [folder / text for folder in folders for text in dict.fromkeys(texts)]
        image = next((near for place in places if (near := reading.tree.find(place))), path.parent / words[0])
        wheres.setdefault(image, where)
        boxes.setdefault(image, [])
        if words[5]:
            with reading.mistakes_collected():
                boxes[image].append(_box(words[1:], names, where))
    full = {image: os.path.normpath(os.path.abspath(image)) for image in wheres}
    folder = os.path.commonpath([os.path.dirname(text) for text in full.values()]) if full else ""
    images = []
    for image, where in wheres.items():
        with reading.mistakes_collected():
            width, height = reading.size(image, where)
            image_name = Path(os.path.relpath(full[image], folder)).as_posix()
            scaled = [_scaled(box, width, height) for box in boxes[image]] if are_fractions else boxes[image]
            images.append(LabelledImage(image, image_name, width, height, scaled))
    return images


def _scaled(box: Box, width: int, height: int) -> Box:
    left, top = round(box.left * width, DECIMALS), round(box.top * height, DECIMALS)
    return Box(box.label, left, top, round(box.width * width, DECIMALS), round(box.height * height, DECIMALS))


def _box(words: list[str], names: list[str], where: str) -> Box:
    x1, y1, x2, y2 = _numbers(words[:4], where)
    if x2 <= x1 or y2 <= y1:
        raise DataFault(
            "boxes without area",
            f"{where}: x2 or y2 is not above x1 or y1. Are these a width and a height? Correct the row.",
        )
    if words[4] not in names:
        raise DataFault(
            "classes that aren't in the list",
            f"{where}: class {words[4]!r} is not in the list of classes ({', '.join(names[:10])}). Correct the row, or "
            "add the class.",
        )
    return Box(names.index(words[4]), x1, y1, x2 - x1, y2 - y1)


def _numbers(words: list[str], where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError as fault:
        raise DataFault("words that aren't numbers", f"{where}: {fault}. Write pixels.") from None
    if not all(map(math.isfinite, numbers)):
        raise DataFault("numbers that aren't finite", f"{where}: has a number that is not finite. Write pixels.")
    return numbers

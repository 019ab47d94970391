"""Reads CSV annotations, with or without a header: a row per object, and optionally a file that numbers the classes."""

import csv
import math
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.coco.boxes import INSIDE_SHARE, OUTSIDE_SHARE, TOLERANCE
from retinanet.coco.folder import known_set, set_name_of, set_told_by
from retinanet.coco.formats import CSV_COLUMNS, CsvColumns, csv_columns, csv_delimiter
from retinanet.convert.image_files import NO_SET, ImageFinder
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
    size: tuple[float, float] | None = None  # width and height of the image, if the row gives them


class Table(NamedTuple):
    """A CSV file's rows (path, x1, y1, x2, y2, class), and whether the file has width and height instead of x2, y2."""

    rows: list[Row]
    are_sizes: bool


def read_csv(reading: Reading) -> Labelled:
    """Reads the sets of a folder, one per file, or the set of a single file.

    Image paths are relative to the folder of the CSV file; an image that isn't there is looked up by its name. A row
    with only a path stands for an image without objects. A file with the columns class,number numbers the classes;
    without such a file, classes are sorted by name. Mistakes in individual rows are added to `reading`; any other
    mistake raises a UserError that names it.
    """
    source = reading.source
    folder = reading.root
    files = reading.files(".csv") if source.is_dir() else sorted({source, *folder.glob("*.csv")})
    if source.is_file():  # other files next to it are read only if they list the classes
        files = [path for path in files if path == source or _may_be_class_list(path)]
    tables = {path: list(_rows(reading, path)) for path in files}
    begins = {path: [row.words for row in rows[:2]] for path, rows in tables.items()}
    lists = [path for path, rows in begins.items() if _begins_class_list(rows)]
    if len(lists) > 1:
        raise UserError(
            f"{folder}: {lists[0].name} and {lists[1].name} both have two columns. Keep one list of classes."
        )
    others = [path for path, rows in begins.items() if path not in [*lists, source] and _has_two_columns(rows)]
    for path in others:  # such as Kaggle's sample_submission.csv
        reading.tree.leave(path, "CSV without boxes")
    files = [source] if source.is_file() else [path for path in tables if path not in [*lists, *others]]
    if source in lists:
        raise UserError(f"{source}: is a list of classes. Use the file with the rows {COLUMNS}.")
    if not files:
        raise UserError(f"{folder}: has no CSV file of annotations. Add one with the rows {COLUMNS}.")
    annotated = {path: _annotations(reading, path, tables[path]) for path in files}
    every = [row for table in annotated.values() for row in table.rows]
    if lists:
        names = _class_list(tables[lists[0]], lists[0])
    else:
        names = sorted({row.words[5] for row in every if row.words[5]})
    if not names:
        reading.fail(f"{files[0]}: has no object, so there are no classes. Add a file with rows class,number.")
    are_fractions = _are_fractions(every)
    if are_fractions:
        reading.notes.append("all coordinates are from 0 to 1, so they are read as fractions of the image")
    finder = ImageFinder(reading)
    set_names = _set_names(reading, list(annotated))
    sets = [
        LabelledSet(set_names[path], _images(reading, path, table, names, are_fractions, finder))
        for path, table in annotated.items()
    ]
    export = "Roboflow's CSV" if any(path.name == ROBOFLOWS for path in files) else ""
    has_sizes = all(row.size for row in every)
    return Labelled(names, sets, notes=reading.notes, export=export, has_sizes=has_sizes)


def _set_names(reading: Reading, files: list[Path]) -> dict[Path, str]:
    """Returns each file's set, recognised by the name of the file or of its folder.

    A single file whose set is unclear is train. If any of several files has an unclear set, or the same set as another,
    every set is named after its file.
    """
    told = {file: set_told_by(file) for file in files}
    if len(files) == 1 and None in told.values():
        if not reading.told.set:
            reading.notes.append(NO_SET)
        return dict.fromkeys(files, "train")
    names = {file: name for file, name in told.items() if name}
    if len(set(names.values())) == len(files):
        return names
    return {file: known_set(file.stem) or set_name_of(file.stem) for file in files}


def _may_be_class_list(path: Path) -> bool:
    try:
        with open_text(path) as file:
            return _begins_class_list(list(islice(filter(None, csv.reader(file)), 2)))
    except (OSError, UnicodeError, csv.Error):
        return False


def _begins_class_list(rows: list[list[str]]) -> bool:
    """Returns True if one of a file's first two `rows` is a class and its number; the first row may be a header."""
    return _has_two_columns(rows) and any(words[-1].strip().isdecimal() for words in rows)


def _has_two_columns(rows: list[list[str]]) -> bool:
    return bool(rows) and len(rows[0]) == 2 and csv_columns(rows[0]) is None


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


def _annotations(reading: Reading, path: Path, rows: list[Row]) -> Table:
    """Returns the rows with the columns in the order path, x1, y1, x2, y2, class, whatever their order in the file."""
    if not rows:
        raise UserError(f"{path}: is empty. Add rows {COLUMNS}, or remove the file.")
    header, names = rows[0].words, reading.told.names or ()
    columns = csv_columns(header)
    if columns is None and len(header) > 2 and all(word[:1].isalpha() for word in header):
        raise UserError(f"{rows[0].where}: has other column names. Call the columns {COLUMNS}, in any order.")
    if columns is None:
        rows = [Row("", []), *rows]
        columns = CsvColumns(0, [1, 2, 3, 4], 5, are_sizes=False, image_size=[])
        header = [""] * CSV_COLUMNS
    if columns.label is None and len(names) != 1:
        raise UserError(
            f"{rows[0].where}: names no column of classes, only {', '.join(header)}. If one of them holds the classes, "
            "call it class; if all objects are of one class, name that with --names, such as --names wheat."
        )
    if columns.label is not None and names:
        raise UserError(f"{path}: has a column of classes, so --names would have no effect. Leave the flag out.")
    checked = []
    for where, words, _ in rows[1:]:
        with reading.mistakes_collected():
            if len(words) != len(header):
                raise DataFault(
                    "rows with a wrong number of columns",
                    f"{where}: has {len(words)} columns, not {len(header)}. Write {COLUMNS}.",
                )
            box = [words[column] for column in columns.box]
            if len(box) == 1:
                box = _numbers_of_list(box[0], where)
            name = words[columns.label] if columns.label is not None else names[0] if any(box) else ""
            size = [words[column] for column in columns.image_size]
            row = Row(where, [words[columns.path], *box, name], _image_size(size, where) if all(size) else None)
            checked.append(_checked(row, columns.are_sizes))
    if not columns.are_sizes and all(row.size in (None, _box_size(row)) for row in checked):
        checked = [row._replace(size=None) for row in checked]  # width and height are the boxes', not the images'
    return Table(checked, columns.are_sizes)


def _numbers_of_list(text: str, where: str) -> list[str]:
    """Returns the four numbers in a text such as [12.0, 8.0, 20.0, 24.0] as strings, all empty if the text is empty."""
    words = re.split(r"[\s,;]+", text.strip("[]() ")) if text.strip("[]() ") else [""] * 4
    if len(words) != 4:
        raise DataFault("boxes without four numbers", f"{where}: bbox is {text!r}. Write [left, top, width, height].")
    return words


def _image_size(words: list[str], where: str) -> tuple[float, float] | None:
    numbers = _numbers(words, where)
    return (numbers[0], numbers[1]) if numbers else None


def _box_size(row: Row) -> tuple[float, float] | None:
    if not row.words[5]:
        return row.size
    try:
        x1, y1, x2, y2 = map(float, row.words[1:5])
    except ValueError:
        return None
    return x2 - x1, y2 - y1


def _checked(row: Row, are_sizes: bool) -> Row:
    """Returns the row, with any width and height converted to x2 and y2; raises DataFault if the row is incomplete."""
    where, words, _ = row
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
    return row._replace(words=words)


def _class_list(rows: list[Row], path: Path) -> list[str]:
    numbers: dict[int, str] = {}
    for where, words, _ in rows:
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
    """Returns True if all coordinates are from 0 to 1, as in Open Images: a file of such boxes can't be in pixels.

    If they aren't whole numbers, they may lie slightly outside because of rounding.
    """
    try:
        numbers = [float(word) for row in rows if row.words[5] for word in row.words[1:5]]
    except ValueError:
        return False
    slack = TOLERANCE if any(number % 1 for number in numbers) else 0
    return bool(numbers) and min(numbers) >= -slack and max(numbers) <= 1 + slack


def _images(
    reading: Reading, path: Path, table: Table, names: list[str], are_fractions: bool, finder: ImageFinder
) -> list[LabelledImage]:
    first: dict[str, Row] = {}
    for row in table.rows:
        first.setdefault(row.words[0], row)
    image_of: dict[str, Path] = {}
    for text, row in first.items():
        with reading.mistakes_collected():
            image_of[text] = _image(reading, path, row, finder)
    rows_of: dict[Path, list[Row]] = {}
    boxes: dict[Path, list[Box]] = {}
    for row in table.rows:
        if (image := image_of.get(row.words[0])) is None:
            continue
        rows_of.setdefault(image, []).append(row)
        boxes.setdefault(image, [])
        if row.words[5]:
            with reading.mistakes_collected():
                boxes[image].append(_box(row.words[1:], names, row.where))
    full = {image: os.path.normpath(os.path.abspath(image)) for image in rows_of}
    folder = os.path.commonpath([os.path.dirname(text) for text in full.values()]) if full else ""
    images = []
    for image, rows in rows_of.items():
        with reading.mistakes_collected():
            wheres = {row.size: row.where for row in reversed(rows)}
            for annotated, where in wheres.items():
                width, height = finder.size(image, where, annotated, where)
            image_name = Path(os.path.relpath(full[image], folder)).as_posix()
            scaled = [_scaled(box, width, height) for box in boxes[image]] if are_fractions else boxes[image]
            images.append(LabelledImage(image, image_name, width, height, scaled))
    if table.are_sizes and not are_fractions:
        _require_left_and_top(path, images)
    return images


def _image(reading: Reading, path: Path, row: Row, finder: ImageFinder) -> Path:
    """Returns the image named in a row of the file `path`; raises DataFault if there is no such image."""
    text = row.words[0]
    name = text.replace("\\", "/")
    if not reading.told.image_path:
        texts = [text, name]
        if Path(name).suffix.lower() not in reading.suffixes:  # Open Images names its files without the suffix
            texts += [f"{name}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
        places = [folder / each for folder in (path.parent, path.parent / "images") for each in dict.fromkeys(texts)]
        if image := next((near for place in places if (near := reading.tree.find(place))), None):
            return image
    if image := finder.find(text, path, row.where, by_annotation=False):
        return image
    raise reading.missing_image(text, row.where, path.parent / text)


def _require_left_and_top(path: Path, images: list[LabelledImage]) -> None:
    """Raises UserError if boxes read as (left, top, width, height) look like corners or like a centre and a size."""
    pairs = [(box[1:5], (image.width, image.height)) for image in images for box in image.boxes]
    if not pairs:
        return
    boxes, limits = np.array([box for box, _ in pairs]), np.array([size for _, size in pairs]) + 1
    xy, sizes = boxes[:, :2], boxes[:, 2:]
    if (xy + sizes > limits).any(axis=1).mean() < OUTSIDE_SHARE:
        return
    others = {
        "x1, y1, x2 and y2": (sizes > xy) & (sizes <= limits),
        "the centre, width and height": (xy - sizes / 2 >= -1) & (xy + sizes / 2 <= limits),
    }
    for what, fits in others.items():
        if fits.all(axis=1).mean() >= INSIDE_SHARE:
            raise UserError(
                f"{path}: its boxes reach past their images when read as left, top, width and height, but fit as "
                f"{what}. Write the columns {COLUMNS}."
            )


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

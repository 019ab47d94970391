"""Defines the annotated sets that readers of all formats return; image sizes are read from the image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from retinanet.data.images import FORMATS, TURNED
from retinanet.runtime.errors import UserError


class Box(NamedTuple):
    """An object in an image, in pixels of the image."""

    label: int  # index into the class names
    left: float
    top: float
    width: float
    height: float
    is_crowd: bool = False


class LabelledImage(NamedTuple):
    path: Path
    name: str  # the path relative to the image folder of the set, like file_name in COCO
    width: int
    height: int
    boxes: list[Box]
    image_id: int | None = None  # if the format has ids


class LabelledSet(NamedTuple):
    name: str  # train, val or test
    images: list[LabelledImage]


class Labelled(NamedTuple):
    """The contents of an annotated data set."""

    class_names: list[str]
    sets: list[LabelledSet]
    category_ids: list[int] | None = None  # if the format has ids
    notes: Sequence[str] = ()  # remarks for the user


def size_of(path: Path, where: str) -> tuple[int, int]:
    """Returns the (width, height) of an image, upright. Raises UserError, which says `where` the image is listed."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
            return (picture.height, picture.width) if is_turned else picture.size
    except FileNotFoundError:
        raise UserError(f"{where}: there is no image {path}. Put it there, or remove the line.") from None
    except Exception as fault:  # Pillow's decoders may raise anything on damaged bytes
        raise UserError(f"{where}: {path} can't be read as an image ({fault}). Replace or remove it.") from None


def text_of(path: Path) -> str:
    """Returns the text of a file. Raises UserError if the file is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Check the path.") from None
    except UnicodeDecodeError as fault:
        line = path.read_bytes()[: fault.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text. Save it as UTF-8.") from None


def require_unique(names: Sequence[str], where: str) -> None:
    """Raises UserError if two classes have the same name, or a class has no name."""
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {number} has no name. Give it one.")
        if name in names[:number]:
            raise UserError(f"{where}: two classes are called {name!r}. Give each its own name.")

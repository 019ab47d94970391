"""What every format is read into: sets of images with boxes, their sizes taken from the images themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from retinanet.data.images import FORMATS, TURNED
from retinanet.runtime.errors import UserError


class Box(NamedTuple):
    """An object in an image, in its pixels."""

    label: int  # row of its set's class names
    left: float
    top: float
    width: float
    height: float
    is_crowd: bool = False


class LabelledImage(NamedTuple):
    path: Path
    name: str  # as file_name: below the folder of its set's images
    width: int
    height: int
    boxes: list[Box]
    image_id: int | None = None  # where the format has ids


class LabelledSet(NamedTuple):
    name: str  # train, val or test
    images: list[LabelledImage]


class Labelled(NamedTuple):
    """All that was read."""

    class_names: list[str]
    sets: list[LabelledSet]
    category_ids: list[int] | None = None  # where the format has ids
    notes: Sequence[str] = ()  # what the user should know


def size_of(path: Path, where: str) -> tuple[int, int]:
    """The (width, height) of an image, upright. UserError, which says `where` the image is named."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
            return (picture.height, picture.width) if is_turned else picture.size
    except FileNotFoundError:
        raise UserError(f"{where}: there is no image {path}. Put it there, or take the line out.") from None
    except Exception as fault:  # Pillow's decoders raise all kinds of errors on damaged bytes
        raise UserError(f"{where}: {path} can't be read as an image ({fault}). Replace it, or take it out.") from None


def text_of(path: Path) -> str:
    """The text of a file. UserError where it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as fault:
        line = path.read_bytes()[: fault.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text. Save it as UTF-8.") from None


def require_unique(names: Sequence[str], where: str) -> None:
    """UserError where two classes have the same name, or one none."""
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {number} has no name. Give it one.")
        if name in names[:number]:
            raise UserError(f"{where}: two classes are called {name!r}. Give each its own name.")

"""Reads image files as 8-bit RGB, oriented according to --exif, and checks their size against the annotations."""

import errno
import importlib.util
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from retinanet.coco.boxes import BACK, MIRRORS_X, MIRRORS_Y, SWAPS, turned_boxes, turned_sizes
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.missing_files import why_missing
from retinanet.settings.shared import MAX_PIXELS, UPRIGHT, WHITE_LEVEL

# The formats that are read, by Pillow's names, whatever a file is called. Of Pillow's thirty other formats, EPS would
# start Ghostscript, which runs the program in the file.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "DIB", "TGA")
if importlib.util.find_spec("PIL.AvifImagePlugin"):  # Pillow 11.3 or newer
    FORMATS = (*FORMATS, "AVIF")
DEEP_GREY = ("PNG", "PPM")  # formats whose 32-bit mode holds 16-bit grey
SWAPPING = (5, 6, 7, 8)  # EXIF orientations that swap height and width
PNG_SIGNATURE = 8  # bytes
PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # chunks that may hold an orientation
STRIP = 2**20  # pixels that are converted at a time
OTHER_ORDER = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
CHANGED = "the pictures have changed; start again"
# Pillow's own limit would stop users who raise --max_pixels; read_image checks --max_pixels before it decodes.
Image.MAX_IMAGE_PIXELS = None


class Region(NamedTuple):
    """Selects a part of a picture, in pixels of the picture as it is read: turned upright, or as stored."""

    top: int
    left: int
    height: int
    width: int


class PicturesChanged(UserError):
    """An image file no longer matches the header that was read from it earlier."""


class Header(NamedTuple):
    """The size, orientation and depth stated in the header of an image file."""

    height: int  # of the stored pixels
    width: int
    orientation: int  # by EXIF, 1 to 8: how to turn the stored pixels upright; 1 if the file has none
    is_deep: bool = False  # has 16 bits per channel

    @property
    def stored_size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def upright_size(self) -> tuple[int, int]:
        return (self.width, self.height) if self.orientation in SWAPPING else (self.height, self.width)

    def turn(self, size: tuple[int, int], exif: str) -> int | None:
        """Returns the EXIF orientation to apply to the stored pixels to get a picture of this `size` (height, width).

        If both the upright and the stored picture have this size, chooses the upright one, or the stored one if `exif`
        is "raw". Returns None if neither has this size.
        """
        sizes = {self.orientation: self.upright_size, 1: self.stored_size}
        turns = [turn for turn, other in sizes.items() if other == size]
        if not turns:
            return None
        return turns[0] if exif == UPRIGHT else turns[-1]


def read_image(
    path: str | Path,
    size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
    *,
    exif: str = UPRIGHT,
    white_level: int = WHITE_LEVEL,
    header: Header | None = None,
    region: Region | None = None,
) -> np.ndarray:
    """Reads the image at `path` as uint8 [height, width, 3]; `size` (height, width) is the size in the annotations.

    Only the first frame is read, and transparency is dropped. With a `region`, returns only this part of the image,
    which saves memory. For the picture's orientation, see Header.turn. `white_level` is the value of white in 16-bit
    pictures. Raises UserError, naming the file, if the image can't be read, has a different size, or has more than
    `max_pixels` pixels (checked in the header, before decoding). Raises PicturesChanged if the image no longer matches
    `header`, which was read earlier.
    """
    with _opened(path, size, max_pixels) as picture:
        current = header_of(picture)
        if header is not None and current[:3] != header[:3]:
            raise PicturesChanged(
                f"{path}: is {current.height} x {current.width} (height x width) with EXIF orientation "
                f"{current.orientation}, but was {header.height} x {header.width} with {header.orientation}: {CHANGED}."
            )
        turn = _checked_turn(path, current, size, exif)
        return _pixels(picture, path, current, turn, white_level, region)


def read_upright(
    source: str | Path | IO[bytes], max_pixels: int = MAX_PIXELS, white_level: int = WHITE_LEVEL
) -> np.ndarray:
    """Reads an unannotated image of any size, as read_image does, but always applies the EXIF orientation."""
    with _opened(source, None, max_pixels) as picture:
        header = header_of(picture)
        return _pixels(picture, source, header, header.orientation, white_level)


def upright(picture: Image.Image, white_level: int = WHITE_LEVEL) -> np.ndarray:
    """Returns the picture's pixels as uint8 [height, width, 3], turned upright according to its EXIF orientation.

    Raises UserError for colour images with 16 bits per channel if `white_level` isn't the default, because Pillow keeps
    only the high bytes.
    """
    header = header_of(picture)
    if _needs_low_bytes(picture, header, white_level):
        raise UserError(
            f"a PIL image with 16 bits per colour: Pillow reads only 8 of them, and the detector's white level is "
            f"{white_level}. Pass the file's path instead."
        )
    return _turned(picture, header, header.orientation, white_level)


def brightest(path: Path) -> int:
    """Returns the largest value, up to 65535, in an image file with 16 bits per channel."""
    with _opened(path, None, sys.maxsize) as picture:
        header = header_of(picture)
        if picture.mode.startswith("I"):
            return int(np.asarray(picture).max())
        low, high = _low_bytes(path, header), np.array(picture.convert("RGB")).astype(int)
        return int((high * 256 + (255 if low is None else low)).max())


def read_header(path: str | Path) -> Header:
    """Reads an image file's header as header_of does. Raises UserError, naming the file, if the file can't be read."""
    with _opened(path, None, sys.maxsize) as picture:
        return header_of(picture, Path(path))


def check_image(path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raises any error that `read_image` would raise because of the file's header, which is read as in header_of."""
    with _opened(path, size, max_pixels) as picture:
        _checked_turn(path, header_of(picture, Path(path)), size, UPRIGHT)


def image_suffixes() -> set[str]:
    """Returns the suffixes of the image formats that `read_image` reads, in lower case, such as .jpg."""
    # Pillow opens MPO files, from stereo cameras, as JPEG.
    return {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")}


def missing_image(path: Path) -> DataFault:
    """Returns the fault to raise if there is no image at `path`."""
    if "\\" in path.name:
        name = path.name.rpartition("\\")[2]
        hint = f": here {name!r}, which is in {path.parent}" if path.with_name(name).is_file() else ""
        return DataFault(
            "file_name_windows",
            f"{path}: no such image. Its file_name looks like a Windows path. Write it relative to the image "
            f"folder, with / instead of \\{hint}.",
        )
    return DataFault(
        "image_missing", f"{path}: no such image.{why_missing(path)} Put it there, or take it out of the annotations."
    )


@contextmanager
def _opened(source: str | Path | IO[bytes], size: tuple[int, int] | None, max_pixels: int) -> Iterator[Image.Image]:
    """Opens the image and checks its header; errors in opening or reading it become UserErrors that name the file.

    `size` (height, width) is None for an image without annotations, which may have any size.
    """
    otherwise = "" if size is None else ", or take it out of the annotations"
    is_path = isinstance(source, str | Path)
    path = str(source if is_path else getattr(source, "name", "the image"))
    kind = "image_unreadable"
    try:
        if is_path and not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe could block forever
            raise ValueError("it is not a regular file")
        with Image.open(source, formats=FORMATS) as picture:
            _check_pixels(path, picture.size, max_pixels)
            if picture.mode == "F" or (picture.mode == "I" and picture.format not in DEEP_GREY):
                raise ValueError("32-bit pixels have no fixed range")
            kind = "image_damaged"  # its header is good
            yield picture
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise missing_image(Path(path)) from None
    except UnidentifiedImageError:
        raise DataFault(
            kind,
            f"{path}: can't be read as an image: it is in none of the formats {', '.join(FORMATS)}. Replace or "
            f"convert the file{otherwise}.",
        ) from None
    except Exception as fault:  # Pillow's decoders raise all kinds of errors on damaged bytes
        if isinstance(fault, OSError) and fault.errno in (errno.EMFILE, errno.ENFILE):
            raise  # too many open files, which is not this file's fault
        raise DataFault(kind, f"{path}: can't be read as an image ({fault}). Replace the file{otherwise}.") from fault


def _check_pixels(path: str | Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataFault(
            "image_too_large",
            f"{path}: {height} x {width} pixels are more than --max_pixels {max_pixels}. Make the image smaller, or "
            "raise the limit if the memory suffices.",
        )


def _checked_turn(path: str | Path, header: Header, size: tuple[int, int], exif: str) -> int:
    turn = header.turn(size, exif)
    if turn is None:
        raise _other_size(path, header, size)
    return turn


def _other_size(path: str | Path, header: Header, size: tuple[int, int]) -> DataFault:
    return DataFault(
        "image_size_differs",
        f"{path}: the image is {header.height} x {header.width} (height x width), its annotation says {size[0]} x "
        f"{size[1]}, and no EXIF orientation explains it. Correct the annotation file's width and height.",
    )


def header_of(picture: Image.Image, path: Path | None = None) -> Header:
    """Returns the header of an open picture.

    The orientation in a PNG file may come after the pixels, which then have to be decoded to reach it. Given the `path`
    of a picture that isn't decoded yet, this function decodes the pixels only if metadata follows them in the file;
    without `path`, it always decodes them.
    """
    is_deep = picture.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    if picture.format == "PNG" and (path is None or _has_late_metadata(path)):
        picture.load()
    try:
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)  # PNG's own would decode pixels
    except Exception:  # damaged EXIF data
        orientation = 1
    orientation = int(orientation) if orientation in range(1, 9) else 1
    width, height = picture.size
    if picture.format == "TIFF" and orientation in SWAPPING:
        width, height = height, width
    return Header(height, width, orientation, is_deep)


def _has_late_metadata(path: Path) -> bool:
    """Returns True if the PNG file `path` has, after its first pixels, a chunk that may hold an orientation."""
    pixels_began = False
    with open(path, "rb") as file:
        file.seek(PNG_SIGNATURE)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if pixels_began and kind in PNG_METADATA:
                return True
            pixels_began |= kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)  # 4 bytes of checksum
    return False


def _pixels(
    picture: Image.Image,
    source: str | Path | IO[bytes],
    header: Header,
    turn: int,
    white_level: int,
    region: Region | None = None,
) -> np.ndarray:
    picture.load()
    low = _low_bytes(source, header) if _needs_low_bytes(picture, header, white_level) else None
    return _turned(picture, header, turn, white_level, low, region)


def _needs_low_bytes(picture: Image.Image, header: Header, white_level: int) -> bool:
    return header.is_deep and white_level != WHITE_LEVEL and not picture.mode.startswith("I")


def _turned(
    picture: Image.Image,
    header: Header,
    turn: int,
    white_level: int,
    low: np.ndarray | None = None,
    region: Region | None = None,
) -> np.ndarray:
    """Returns the decoded picture, or a region, as uint8 [height, width, 3], with EXIF orientation `turn` applied.

    `low` holds the low bytes of 16-bit channels, if needed. The picture is converted in strips, because Pillow's own
    conversion and rotation would each hold another copy of a large picture in memory.
    """
    if picture.format == "TIFF":  # Pillow turns it upright as it decodes
        turn = 1 if turn == header.orientation else int(BACK[header.orientation])
    size = picture.height, picture.width
    top, left, height, width = _before_turning(region, size, turn) if region else Region(0, 0, *size)
    pixels = np.empty((width, height, 3) if SWAPS[turn] else (height, width, 3), np.uint8)
    stored = pixels.swapaxes(0, 1) if SWAPS[turn] else pixels
    stored = stored[:: -1 if MIRRORS_Y[turn] else 1, :: -1 if MIRRORS_X[turn] else 1]  # a view in the stored order
    step = max(1, STRIP // width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows, columns = slice(top + start, top + stop), slice(left, left + width)
        strip = picture.crop((left, rows.start, left + width, rows.stop)) if (stop - start, width) != size else picture
        stored[start:stop] = _to_rgb(strip, white_level, None if low is None else low[rows, columns])
    return pixels


def _before_turning(region: Region, size: tuple[int, int], turn: int) -> Region:
    """Returns the region in a picture of `size` (height, width) that becomes `region` when the picture is turned."""
    box = np.array([[region.left, region.top, region.width, region.height]])
    turned_size = turned_sizes(np.array([size]), np.array([turn]))
    left, top, width, height = turned_boxes(box, BACK[[turn]], turned_size)[0].tolist()
    return Region(top, left, height, width)


def _to_rgb(picture: Image.Image, white_level: int, low: np.ndarray | None = None) -> np.ndarray:
    """Returns a picture as uint8 [height, width, 3]; `low` holds the low bytes of 16-bit channels, if needed."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's conversion would clip at 255
        grey = np.rint(np.asarray(picture) / (white_level / 255)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    if low is None:
        return pixels
    return np.rint((pixels.astype(np.float32) * 256 + low) / (white_level / 255)).clip(0, 255).astype(np.uint8)


def _low_bytes(source: str | Path | IO[bytes], header: Header) -> np.ndarray | None:
    """Returns the low bytes [height, width, 3] of 16-bit colour channels; Pillow itself reads only the high bytes.

    Returns None if the file has no such channels.
    """
    if not isinstance(source, str | Path):
        source.seek(0)
    with Image.open(source, formats=FORMATS) as picture:
        if not header.is_deep or picture.mode not in ("RGB", "RGBA"):
            return None
        has_grey = any("LA;16" in str(tile.args) for tile in picture.tile)
        picture.tile = [tile._replace(args=_with_other_byte(tile.args)) for tile in picture.tile]
        pixels = np.array(picture.convert("RGB"))
        return pixels[..., [1, 1, 1]] if has_grey else pixels


def _with_other_byte(args: Any) -> Any:
    """Returns the decoder's arguments with the byte order swapped, so that it reads the low byte of each sample.

    Pillow can't swap the bytes of grey with alpha, so the four bytes of a pixel are read as four channels, of which the
    second is the low byte of grey.
    """
    if isinstance(args, tuple):
        return _with_other_byte(args[0]), *args[1:]
    if args == "LA;16B":
        return "RGBA"
    return re.sub(";16[BLN]", lambda order: OTHER_ORDER[order[0]], args)

"""Reads image files of any mode as 8-bit RGB and checks them against the size in the annotations."""

import importlib.util
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.missing_files import why_missing
from retinanet.settings.shared import MAX_PIXELS

# The formats that are read, by Pillow's names, whatever a file is called. Of Pillow's thirty other formats, EPS would
# start Ghostscript, which runs the program in the file.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "DIB", "TGA")
if importlib.util.find_spec("PIL.AvifImagePlugin"):  # Pillow 11.3 or newer
    FORMATS = (*FORMATS, "AVIF")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
DEEP_GREY = ("PNG", "PPM")  # formats whose 32-bit mode holds 16-bit grey
# Pillow's own limit would stop users who raise --max_pixels; read_image checks --max_pixels before it decodes.
Image.MAX_IMAGE_PIXELS = None


def read_image(path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads the image in `path` as uint8 [height, width, 3]; `size` (height, width) is the size in the annotations.

    Only the first frame is read, and transparency is dropped. The EXIF orientation is applied if the image has the
    annotated size only when rotated. Raises UserError, naming the file, if the image can't be read, has another size,
    or has more than `max_pixels` pixels (checked in the header, before decoding).
    """
    with _opened(path, size, max_pixels) as picture:
        return _upright(picture, size)


def read_upright(source: str | Path | IO[bytes], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image without annotations, like `read_image`, but of any size and always rotated as EXIF says."""
    with _opened(source, None, max_pixels) as picture:
        return upright(picture)


def upright(picture: Image.Image) -> np.ndarray:
    """Returns the picture's pixels as uint8 [height, width, 3], rotated upright by its EXIF orientation."""
    return _to_rgb(ImageOps.exif_transpose(picture))


def image_suffixes() -> set[str]:
    """Returns the suffixes of the image formats that `read_image` reads, in lower case, such as .jpg."""
    # Pillow opens MPO files, from stereo cameras, as JPEG.
    return {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")}


def read_with_orientation(
    path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, int, bool]:
    """Reads an image like `read_image`.

    Also returns its EXIF orientation, 1 to 8 (1 if there is none), and True if the orientation was applied.
    """
    with _opened(path, size, max_pixels) as picture:
        image = _upright(picture, size)
        try:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # damaged EXIF data, which read_image doesn't read if the size fits
            orientation = 1
        return image, orientation, picture.size != (size[1], size[0])


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


def check_image(path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raises the errors that `read_image` raises about the header of `path`, without decoding pixels."""
    with _opened(path, size, max_pixels):
        pass


@contextmanager
def _opened(source: str | Path | IO[bytes], size: tuple[int, int] | None, max_pixels: int) -> Iterator[Image.Image]:
    """Opens the image and checks its header; any error while it is open becomes a UserError that names the file.

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
            if size is not None:
                _check_size(path, picture, size)
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
            f"{path}: can't be read as an image: it holds none of the formats {', '.join(FORMATS)}. Replace or "
            f"convert the file{otherwise}.",
        ) from None
    except Exception as fault:  # Pillow's decoders raise all kinds of errors on damaged bytes
        raise DataFault(kind, f"{path}: can't be read as an image ({fault}). Replace the file{otherwise}.") from fault


def _check_pixels(path: str | Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataFault(
            "image_too_large",
            f"{path}: {height} x {width} pixels are more than --max_pixels {max_pixels}. Make the image smaller, or "
            "raise the limit if the memory suffices.",
        )


def _check_size(path: str | Path, picture: Image.Image, size: tuple[int, int]) -> None:
    height, width = size
    if picture.size == (width, height):
        return  # without reading the orientation, which a PNG may store after its pixels
    is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    if not is_turned or picture.size != (height, width):
        raise DataFault(
            "image_size_differs",
            f"{path}: the image is {picture.height} x {picture.width} (height x width), its annotation says "
            f"{height} x {width}, and no EXIF orientation explains it. Correct the annotation file's width and height.",
        )


def _upright(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return _to_rgb(picture if picture.size == (size[1], size[0]) else ImageOps.exif_transpose(picture))


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's conversion would clip at 255
        grey = np.rint(np.asarray(picture) / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))

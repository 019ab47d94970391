"""Image files: any mode of the formats that data sets have, to 8-bit RGB of the size that the annotations state."""

import importlib.util
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from retinanet.data.settings import MAX_PIXELS
from retinanet.runtime.errors import DataFault, UserError

# Pillow's names of the formats that are read, whatever the file is called. It knows some thirty more, for one of which,
# EPS, it starts Ghostscript: a program that runs what is in the file.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "DIB", "TGA")


if importlib.util.find_spec("PIL.AvifImagePlugin"):  # from Pillow 11.3
    FORMATS = (*FORMATS, "AVIF")


DEEP_GREY = ("PNG", "PPM")  # formats whose 32-bit mode holds 16-bit grey
# Pillow has a limit of its own, which would stop users who raise ours; read_image checks before it decodes.
Image.MAX_IMAGE_PIXELS = None


def read_image(path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> Tensor:
    """The image in `path` as uint8 [3, height, width], whose `size` (height, width) the annotations state.

    A multi-frame file gives its first frame, transparency is dropped. The EXIF orientation is applied when, and only
    when, the image has the stated size with it and not without. Raises UserError, naming the file, where it can't be
    read, has another size, or more than `max_pixels` (seen in its header, before anything is decoded).
    """
    with _opened(path, size, max_pixels) as picture:
        return _upright(picture, size)


def image_suffixes() -> set[str]:
    """What the names of image files end with that `read_image` reads: .jpg and so on, in lower case."""
    # MPO, what stereo cameras write, is a JPEG to Pillow once it is opened by content.
    return {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")}


def read_with_orientation(
    path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, int, bool]:
    """What `read_image` gives, the EXIF orientation (1 to 8, 1 where none is said), and whether it was applied."""
    with _opened(path, size, max_pixels) as picture:
        image = _upright(picture, size)
        try:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # damaged EXIF data, at which read_image doesn't look where the size fits
            orientation = 1
        return image, orientation, picture.size != (size[1], size[0])


def missing_image(path: Path) -> DataFault:
    """What to say where there is no image at `path`."""
    if "\\" in path.name:
        name = path.name.rpartition("\\")[2]
        found = f": here {name!r}, which is in {path.parent}" if path.with_name(name).is_file() else ""
        return DataFault(
            "file_name_windows",
            f"{path}: no such image. Its file_name looks like a path of Windows. Write it relative to the image "
            f"folder, with / instead of \\{found}.",
        )
    return DataFault("image_missing", f"{path}: no such image. Put it there, or take it out of the annotations.")


def check_image(path: str | Path, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise what `read_image` raises about the header of `path`, without decoding its pixels."""
    with _opened(path, size, max_pixels):
        pass


@contextmanager
def _opened(path: str | Path, size: tuple[int, int], max_pixels: int) -> Iterator[Image.Image]:
    """The picture, its header checked; whatever goes wrong with it meanwhile is a UserError that names it."""
    kind = "image_unreadable"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
            raise ValueError("it is no regular file")
        with Image.open(path, formats=FORMATS) as picture:
            _check_pixels(path, picture.size, max_pixels)
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
            "convert the file, or take it out of the annotations.",
        ) from None
    except Exception as fault:  # Pillow's many decoders raise whatever damaged bytes lead them to
        raise DataFault(
            kind, f"{path}: can't be read as an image ({fault}). Replace the file, or take it out of the annotations."
        ) from fault


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
        return  # before the orientation is asked for: a PNG's may stand behind its pixels
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)  # they exchange height and width
    if not turned or picture.size != (height, width):
        raise DataFault(
            "image_size_differs",
            f"{path}: the image is {picture.height} x {picture.width} (height x width), its annotation says "
            f"{height} x {width}, and no EXIF orientation explains it. Correct the annotation file's width and height.",
        )


def _upright(picture: Image.Image, size: tuple[int, int]) -> Tensor:
    return _to_rgb(picture if picture.size == (size[1], size[0]) else ImageOps.exif_transpose(picture))


def _to_rgb(picture: Image.Image) -> Tensor:
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would cut off at 255
        grey = np.rint(np.asarray(picture) / 257).clip(0, 255).astype(np.uint8)
        return torch.from_numpy(grey).expand(3, -1, -1)
    return pil_to_tensor(picture.convert("RGB"))

"""Explains why a command didn't read files that it found."""

from pathlib import Path

from retinanet.data.images import image_suffixes

# Image formats that read_image doesn't read.
OTHER_PICTURES = {".heic", ".heif", ".psd", ".svg", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".eps", ".jxl"}
UNNAMED_IMAGES = "not named by the annotations"
UNREADABLE_IMAGE = "not readable as an image"


def reason_unread(path: Path) -> str:
    """Returns why a regular file was not read, judging by its name; the wording fits one file as well as several."""
    suffix = path.suffix.lower()
    if suffix in image_suffixes():
        return UNNAMED_IMAGES
    return "in an unsupported format" if suffix in OTHER_PICTURES else "of another kind"

"""What SOURCE names: images, folders, globs, lists of paths and videos, as one stream of files."""

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from retinanet.data.images import image_suffixes
from retinanet.runtime.errors import CANT_READ, UserError, file_error_explained

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"}


class SourceFile(NamedTuple):
    """An image or a video."""

    path: Path
    name: str  # below its folder's output: the path from the SOURCE that it was found in
    is_video: bool = False


def find_sources(sources: Sequence[str], leave_out: Path) -> list[SourceFile]:
    """The files that `sources` name, in their order, folders sorted.

    What is in the folder `leave_out` is not among them, unless a source starts there. UserError if one names nothing.
    """
    suffixes = image_suffixes()
    found = []
    for source in sources:
        files = list(_files_of(source, suffixes, leave_out))
        if not files:
            endings = ", ".join(sorted(suffixes | VIDEO_SUFFIXES))
            raise UserError(f"{source}: no image or video is there. Files with these endings count: {endings}")
        found += files
    return found


def _files_of(source: str, suffixes: set[str], leave_out: Path) -> Iterator[SourceFile]:
    path = Path(source)
    if path.is_dir():
        yield from _files_in(path, suffixes, leave_out)
    elif path.exists():
        if path.suffix.lower() == ".txt":
            yield from _listed_in(path)
        else:
            yield _file(path, path.name)
    elif glob.has_magic(source):
        own = leave_out.resolve()
        start = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts)).resolve()
        for name in sorted(glob.glob(source, recursive=True)):
            if start.is_relative_to(own) or not Path(name).resolve().is_relative_to(own):
                yield from _files_of(name, suffixes, leave_out)
    else:
        raise UserError(
            f"{source}: no such file or folder. Give images, folders, globs in quotes, .txt files of paths, or videos"
        )


def _files_in(folder: Path, suffixes: set[str], leave_out: Path) -> Iterator[SourceFile]:
    wanted, own = suffixes | VIDEO_SUFFIXES, leave_out.resolve()
    for parent, below, names in os.walk(folder, followlinks=False):
        below[:] = sorted(name for name in below if (Path(parent) / name).resolve() != own)
        for name in sorted(names):
            path = Path(parent) / name
            if path.suffix.lower() in wanted and not name.startswith("."):
                yield _file(path, path.relative_to(folder).as_posix())


def _listed_in(path: Path) -> Iterator[SourceFile]:
    """The files whose paths are the lines of `path`, from here or from its folder; # starts a comment."""
    with file_error_explained(path, CANT_READ, "Give a text file of paths."):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path}: is not UTF-8 text. Write one path of an image or a video a line") from None
    for line in lines:
        name = line.strip()
        if name and not name.startswith("#"):
            there = Path(name) if Path(name).exists() else path.parent / name
            yield _file(there, name.lstrip("/"))


def _file(path: Path, name: str) -> SourceFile:
    return SourceFile(path, name, path.suffix.lower() in VIDEO_SUFFIXES)

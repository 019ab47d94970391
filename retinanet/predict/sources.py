"""Resolves SOURCE arguments (images, videos, folders, globs and lists of paths) to a list of files."""

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from retinanet.data.images import image_suffixes
from retinanet.runtime.errors import CANT_READ, UserError, file_error_explained
from retinanet.runtime.text_files import decoded
from retinanet.runtime.tree import Tree

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"}


class SourceFile(NamedTuple):
    """Identifies an image or a video."""

    path: Path
    name: str  # the path relative to its SOURCE folder; also used below the output folder
    is_video: bool = False


def find_sources(sources: Sequence[str], leave_out: Path, tree: Tree | None = None) -> list[SourceFile]:
    """Returns the files that `sources` name, in the order of the sources; files of a folder are sorted.

    A file found several times, for example because a glob also matches its folder, is returned once. Folders and
    globs don't yield files from the folder `leave_out`, unless the source itself lies in that folder. `tree` lists the
    files in the folders and records which of them are left out. Raises UserError if no image or video is found for a
    source.
    """
    tree = tree or Tree()
    suffixes = image_suffixes()
    found_files: dict[str, SourceFile] = {}  # by absolute path
    for source in sources:
        files = list(_files_of(source, suffixes, leave_out, tree))
        if not files:
            endings = ", ".join(sorted(suffixes | VIDEO_SUFFIXES))
            raise UserError(f"{source}: no image or video found. Readable files end in {endings}")
        for file in files:
            found_files.setdefault(os.path.abspath(file.path), file)
    return list(found_files.values())


def _files_of(source: str, suffixes: set[str], leave_out: Path, tree: Tree) -> Iterator[SourceFile]:
    path = Path(source)
    if path.is_dir():
        yield from _files_in(path, suffixes, leave_out, tree)
    elif path.exists():
        if path.suffix.lower() == ".txt":
            yield from _listed_in(path)
        else:
            yield _file(path, path.name)
    elif glob.has_magic(source):
        excluded = leave_out.resolve()
        start = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts)).resolve()
        for name in sorted(glob.glob(source, recursive=True)):
            match = Path(name)
            if match.resolve().is_relative_to(excluded) and not start.is_relative_to(excluded):
                continue
            if not match.exists():  # a link that leads nowhere; it is reported when it is read
                yield _file(match, match.name)
            elif match.suffix.lower() != ".txt" or source.lower().endswith(".txt"):  # others are labels or notes
                yield from _files_of(name, suffixes, leave_out, tree)
    else:
        raise UserError(
            f"{source}: no such file or folder. Pass images, folders, globs in quotes, .txt files of paths, or videos"
        )


def _files_in(folder: Path, suffixes: set[str], leave_out: Path, tree: Tree) -> Iterator[SourceFile]:
    readable, excluded = suffixes | VIDEO_SUFFIXES, leave_out.resolve()
    are_excluded = {}  # by folder
    for path in tree.files(folder):
        if path.parent not in are_excluded:
            place = path.parent.resolve()
            are_excluded[path.parent] = place.is_relative_to(excluded) and not folder.resolve().is_relative_to(excluded)
        if are_excluded[path.parent]:
            tree.leave(path, "in the output folder")
        elif path.suffix.lower() in readable:
            yield _file(path, path.relative_to(folder).as_posix())


def _listed_in(path: Path) -> Iterator[SourceFile]:
    """Yields the files listed in `path`; lines that start with # are comments.

    A listed path is relative to the current folder or, if no such file exists there, to the folder of `path`.
    """
    with file_error_explained(path, CANT_READ, "Pass a text file of paths."):
        lines = decoded(path.read_bytes(), path).splitlines()
    for line in lines:
        name = line.strip()
        if name and not name.startswith("#"):
            listed = Path(name) if Path(name).exists() else path.parent / name
            yield _file(listed, name.lstrip("/"))


def _file(path: Path, name: str) -> SourceFile:
    return SourceFile(path, name, path.suffix.lower() in VIDEO_SUFFIXES)

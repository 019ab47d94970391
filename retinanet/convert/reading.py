"""Holds what a reader works with: the dataset's files, the user's settings for them, and the mistakes so far."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from retinanet.coco.folder import export_below
from retinanet.convert.sets import size_of, text_of
from retinanet.data.images import image_suffixes
from retinanet.data.unread import UNREADABLE_IMAGE, reason_unread
from retinanet.runtime.console import say
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.missing_files import why_missing
from retinanet.runtime.tree import Account, Tree
from retinanet.settings.convert import SKIP, ReadSettings
from retinanet.settings.shared import UPRIGHT

LEAST_LABELLED = 0.05  # if a smaller fraction of a set's images have label files, the files are probably misplaced


class Reading:
    """A dataset that is being read: its files, and the notes and mistakes so far."""

    def __init__(self, source: Path, told: ReadSettings | None = None, exif: str = UPRIGHT) -> None:
        self.source = export_below(source) if source.is_dir() else source
        self.root = self.source if source.is_dir() else source.parent
        self.told = told or ReadSettings()
        self.exif = exif
        self.tree = Tree()
        self.notes: list[str] = []
        self.mistakes: dict[str, list[str]] = {}  # the messages by kind
        self.suffixes = image_suffixes()
        if source.is_dir():
            self.tree.files(source)

    def files(self, *suffixes: str, folder: Path | None = None) -> list[Path]:
        """Returns the files below `folder` (default: the dataset), or only the files with one of the `suffixes`."""
        files = self.tree.files(folder or self.root)
        return [path for path in files if path.suffix.lower() in suffixes] if suffixes else files

    def images(self, folder: Path | None = None) -> list[Path]:
        """Returns the image files below `folder` (default: --image_path or else the dataset)."""
        return self.files(*self.suffixes, folder=folder or self.told.image_path)

    def images_beside(self, folders: Iterable[Path]) -> list[Path]:
        """Returns the image files directly in the `folders`, which may be outside the dataset."""
        walked: dict[Path, list[Path]] = {}
        for path in self.images():
            walked.setdefault(path.parent, []).append(path)
        every = [walked[folder] if folder in walked else self.tree.files_in(folder) for folder in folders]
        return [path for paths in every for path in paths if path.suffix.lower() in self.suffixes]

    def text(self, path: Path) -> str:
        """Returns the text of a file; raises DataFault if it can't be read as text."""
        try:
            text = text_of(path)
        except UserError as fault:
            if path.exists():
                self.tree.leave(path, "not readable as text")
            raise DataFault("files that can't be read as text", str(fault)) from None
        self.tree.read(path)
        return text

    def size(self, image: Path, where: str) -> tuple[int, int]:
        """Returns an image's (width, height), oriented according to --exif; raises DataFault if it can't be read."""
        try:
            size = size_of(image, where, self.exif)
        except UserError as fault:
            if not image.exists():
                raise DataFault("images that are missing", str(fault)) from None
            self.tree.leave(image, UNREADABLE_IMAGE)
            raise DataFault("images that can't be read", str(fault)) from None
        self.tree.read(image)
        return size

    def missing_image(self, name: str, where: str, place: Path | None = None) -> DataFault:
        """Returns a DataFault for the missing image `name`, expected at `place`, with advice on what to do."""
        folder = self.told.image_path
        missing, advice = f"{place or name}", "name the folder of the images with --image_path"
        if folder:
            missing, advice = f"{name} in {folder}", "correct --image_path"
        why = why_missing(folder / name if folder else place or self.root / name)
        return DataFault(
            "images that are missing", f"{where}: there is no image {missing}.{why} Put it there, or {advice}."
        )

    @contextmanager
    def mistakes_collected(self) -> Iterator[None]:
        """Adds a mistake raised in the block to the list; reading continues after the block."""
        try:
            yield
        except DataFault as fault:
            self.note_mistake(fault)

    def note_mistake(self, fault: DataFault) -> None:
        self.mistakes.setdefault(fault.kind, []).append(fault.message)

    def require_labels(self, name: str, labelled: int, total: int, looked_for: str) -> None:
        """Without --allow_unlabelled, raises UserError if hardly any of the `total` images have a label file."""
        if not total or labelled >= max(1, LEAST_LABELLED * total) or self.told.allow_unlabelled:
            return
        unread = [path for path in self.files(".txt", ".xml", ".json") if not self.tree.is_read(path)]
        files = f"{len(unread)} other label or text files, such as {unread[0]}" if unread else "no other label files"
        raise UserError(
            f"{self.source}: {labelled} of the {total} images of {name} have a label file. Looked for {looked_for}; "
            f"there are {files}. Put the label files there, or, if these images show no objects, set "
            "--allow_unlabelled."
        )

    def end(self) -> None:
        """Lists the mistakes. Raises UserError if there are any, unless --bad_labels is "skip"."""
        kinds, total = len(self.mistakes), sum(map(len, self.mistakes.values()))
        if not total:
            return
        lines = [f"  {kind}: {len(messages)}; the first: {messages[0]}" for kind, messages in self.mistakes.items()]
        if self.told.bad_labels == SKIP:
            say(f"Left out, because of --bad_labels skip: {total}", *lines)
            return
        if total == 1:
            raise UserError(next(iter(self.mistakes.values()))[0])
        say(f"Mistakes in {self.source}:", *lines)
        raise UserError(
            f"{self.source}: {total} mistakes of {kinds} kind{'s' * (kinds > 1)}, listed above; the first is "
            f"{next(iter(self.mistakes.values()))[0]} Nothing is written. Correct them, or leave such rows out with "
            "--bad_labels skip."
        )

    def fail(self, message: str) -> NoReturn:
        """Raises UserError with `message` or, if there are mistakes that may be the cause, with those."""
        if self.mistakes and self.told.bad_labels != SKIP:
            self.end()
        raise UserError(message)

    def account(self) -> Account:
        return self.tree.account(reason_unread)

"""Writes every printed line to a log file in --log_dir, under a name that describes the run."""

import fcntl
import itertools
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import printable
from retinanet.runtime.streams import complain

# Names such as train_depth18_seed3407_lr1e-4_epochs50_no6.log.
ENDING = ".log"
RUN_KINDS = ("train", "valid", "test")
INTEGER_PART = re.compile(r"(depth|seed|epochs|no)([0-9]{1,19})")
RATE_PART = re.compile(r"lr([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)")


class LogName(NamedTuple):
    """Holds the parts of a log's name; None stands for a missing part."""

    kind: str | None = None  # one of RUN_KINDS
    depth: int | None = None
    seed: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    number: int | None = None  # the run's number in its folder


def parse_name(name: str) -> LogName:
    """Returns the known parts of a log's name, in any order. Any other parts, such as a date, are ignored."""
    found: dict[str, Any] = {}
    for part in name.removesuffix(ENDING).split("_"):
        if part in RUN_KINDS:
            found.setdefault("kind", part)
        elif whole := INTEGER_PART.fullmatch(part):
            found.setdefault("number" if whole[1] == "no" else whole[1], int(whole[2]))
        elif (rate := RATE_PART.fullmatch(part)) and 0 < float(rate[1]) < math.inf:
            found.setdefault("learning_rate", float(rate[1]))
    return LogName(**found)


def make_name(name: LogName) -> str:
    rate = None if name.learning_rate is None else rate_text(name.learning_rate)
    parts = (("depth", name.depth), ("seed", name.seed), ("lr", rate), ("epochs", name.epochs), ("no", name.number))
    words = [name.kind or "", *(f"{prefix}{part}" for prefix, part in parts if part is not None)]
    return "_".join(word for word in words if word) + ENDING


def name_of_run(kind: str, settings: dict[str, Any]) -> LogName:
    """Returns the log name, without a number, of a run with the given `settings`."""
    whole = {name: settings.get(name) for name in ("depth", "seed", "epochs")}
    rate = settings.get("learning_rate")
    return LogName(
        kind,
        **{name: value for name, value in whole.items() if type(value) is int and value >= 0},
        learning_rate=rate if isinstance(rate, float) and 0 < rate < math.inf else None,
    )


def next_number(folder: Path) -> int:
    """Returns one more than the largest number of any log in `folder`; 1 if there is no numbered log."""
    return 1 + max((parse_name(path.name).number or 0 for path in folder.glob(f"*{ENDING}")), default=0)


def rate_text(rate: float) -> str:
    """Returns the shortest text that represents `rate` exactly, such as 1e-4, 2.5e-4, 1e-2 or 0.1."""
    digits = Decimal(repr(rate)).normalize()
    return min(f"{digits:e}".replace("+", ""), f"{digits:f}", key=len)


class LogFile:
    """Records printed lines; buffers them until the file exists. A process has one log, just as it has one stdout."""

    def __init__(self) -> None:
        self._start(None)

    def _start(self, folder: Path | None) -> None:
        self.folder = folder
        self.path: Path | None = None
        self._file: FileIO | None = None
        self._created: list[Path] = []  # folders, the deepest first
        self._unwritten = b""
        self._has_complained = False

    @contextmanager
    def recording(self, folder: Path | None) -> Iterator[None]:
        """Inside the block, records lines for a log in `folder`; if `folder` is None, this and `opened` do nothing."""
        self._start(folder)
        try:
            yield
        finally:
            if self._file:
                self._file.close()
            self._start(None)

    @contextmanager
    def opened(self, name: LogName) -> Iterator[None]:
        """Creates the log file with the next number in the folder, and removes the file if the block raises.

        Raises UserError if the file can't be written.
        """
        try:
            self._open(name)
            yield
        except BaseException:
            self._remove()
            raise

    def _open(self, name: LogName) -> None:
        if self.folder is None:
            return
        try:
            self._created = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone_in(self.folder):
                self.path, self._file = _new_file(self.folder, name)
        except OSError as error:
            raise UserError(
                f"{error.filename}: the log folder can't be written to ({error.strerror}). Choose another --log_dir."
            ) from None

    def _remove(self) -> None:
        if self.path:
            self.path.unlink(missing_ok=True)
        for folder in self._created:
            with suppress(OSError):  # by now the folder contains another run's log, or it was never created
                folder.rmdir()

    def write(self, text: str) -> None:
        """Writes `text` after any text that is still unwritten. A full disk is reported once, and the run continues."""
        if self.folder is None:
            return
        self._unwritten += text.encode(sys.stdout.encoding or "utf-8", sys.stdout.errors or "strict")
        if self._file is None:
            return
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not self._has_complained:
                complain(
                    f"{Path(sys.argv[0]).name}: {printable(str(self.path))}: can't be written "
                    f"({error.strerror}). The run continues, and the missing lines follow once there is space."
                )
            self._has_complained = True


LOG = LogFile()


def _new_file(folder: Path, name: LogName) -> tuple[Path, FileIO]:
    for number in itertools.count(next_number(folder)):
        path = folder / make_name(name._replace(number=number))
        with suppress(FileExistsError):
            return path, open(path, "xb", buffering=0)
    raise AssertionError("unreachable: the numbers never end")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Locks `folder`, so that a run whose log has a different name can't take the same number at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without locks, two runs started at once may get the same number
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""Defines the exceptions that end a run early; console.py turns each into an exit code and at most one message."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS: set[str] = set()  # of the running command, such as --seed; empty in a program that only uses the package


def either(*remedies: str) -> str:
    """Joins `remedies` as alternatives, leaving out any that name a flag that the running command doesn't have."""
    *others, last = [text for text in remedies if not FLAGS or FLAGS.issuperset(re.findall(r"--\w+", text))] or [""]
    return f"{', '.join(others)}{',' * (len(others) > 1)} or {last}" if others else last


class UserError(ValueError):
    """Reports a mistake that the user can fix; the message names the file or flag, the fault and the fix.

    The scripts print the message without a traceback and exit with code 2. Any exception not defined in this file
    counts as a bug, with a traceback and exit code 1, except an OSError that names a file (code 2) and a
    BrokenPipeError (code 141).
    """

    exit_code = 2


class DataFault(UserError):
    """Reports a mistake in an annotation entry or an image file; check_data/findings.py explains its `kind`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


class Diverged(Exception):
    """Losses or gradients were not finite in too many steps in a row; the message says what to try."""

    exit_code = 3


class OutOfResources(Exception):
    """Memory ran out, or a process of the run died or hung; the message says what happened and what to do."""

    exit_code = 4


class Stopped(BaseException):
    """A signal asked the run to stop. This is not an Exception, so that error handlers don't catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        return 128 + self.signal_number  # the code that a shell reports for a process ended by the signal


CANT_READ = "can't be read"


@contextmanager
def file_error_explained(path: str | Path, problem: str, fix: str) -> Iterator[None]:
    """Turns an OSError into a UserError that gives `path`, the `problem`, the system's reason and the `fix`."""
    try:
        yield
    except FileNotFoundError as error:
        if problem != CANT_READ:
            raise UserError(f"{path}: {problem} ({error.strerror}). {fix}") from None
        raise UserError(f"{path}: no such file. {fix}") from None
    except OSError as error:
        raise UserError(f"{path}: {problem} ({error.strerror or error}). {fix}") from None

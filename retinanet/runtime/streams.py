"""stdout and stderr, which may vanish under a run: a pipe's reader ends, the terminal is closed, a disk fills up."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

GONE = (errno.EPIPE, errno.EIO)  # the pipe's reader has ended; the terminal was closed


class Stdout:
    """The process's stdout. There is one."""

    def __init__(self) -> None:
        self._outlived = self._has_complained = False

    @contextmanager
    def outlived(self) -> Iterator[None]:
        """Inside, lines that stdout can't take go to stderr, and where that fails too, nowhere: nothing is raised."""
        self._outlived, self._has_complained = True, False
        try:
            yield
        finally:
            self._outlived = False
            for stream in filter(None, (sys.stdout, sys.stderr)):  # either is None where the shell closed it
                try:
                    stream.flush()
                except OSError:  # or the interpreter would fail at it, and exit with a code of its own
                    _silence(stream)

    def write(self, text: str) -> None:
        """Write whole lines, flushed, and not into a progress bar's middle. OSError, but not inside `outlived`."""
        try:
            tqdm.write(text, file=sys.stdout, end="")
            sys.stdout.flush()
        except OSError as error:
            if not self._outlived:
                raise
            if error.errno in GONE:
                _continue_on_stderr(text)
            elif not self._has_complained:
                self._has_complained = True
                complain(f"stdout can't be written ({error.strerror}). The run continues; lines are missing there.")


STDOUT = Stdout()


def complain(line: str) -> None:
    """Print a line to stderr; where that is gone too, nobody is left to tell."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _continue_on_stderr(text: str) -> None:
    """Let stderr take the `text`, and from now on all that is written to stdout."""
    _silence(sys.stdout)  # for what a buffer has kept of the text
    if sys.stderr is None:
        return
    try:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Let the null device take what is in the stream's buffer, and all that follows."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    stream.flush()

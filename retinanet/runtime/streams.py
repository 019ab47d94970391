"""Keeps a run alive if stdout or stderr vanishes: if a pipe's reader ends, the terminal closes or a disk fills up."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

GONE = (errno.EPIPE, errno.EIO)  # the pipe's reader has ended; the terminal was closed


class Stdout:
    """Wraps this process's stdout so that a run can survive its loss (see `outlived`)."""

    def __init__(self) -> None:
        self.is_timed = self.is_quiet = False
        self._outlived = self._has_complained = False

    @contextmanager
    def set_up(self, *, timed: bool = False, quiet: bool = False) -> Iterator[None]:
        """Inside the block, `timed` starts lines with the time; `quiet` hides stdout's lines and all progress bars."""
        before = self.is_timed, self.is_quiet
        self.is_timed, self.is_quiet = timed, quiet
        try:
            yield
        finally:
            self.is_timed, self.is_quiet = before

    @contextmanager
    def outlived(self) -> Iterator[None]:
        """Inside the block, lines go to stderr if stdout is gone; if both are gone, they are lost without an error."""
        self._outlived, self._has_complained = True, False
        try:
            yield
        finally:
            self._outlived = False
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except OSError:  # otherwise the interpreter would flush it, fail, and exit with its own code
                    _silence(stream)

    def write(self, text: str) -> None:
        """Writes and flushes whole lines above any progress bar; outside `outlived`, raises OSError on failure."""
        if self.is_quiet:
            return
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
                complain(f"stdout can't be written ({error.strerror}). The run continues; stdout will lack lines.")


STDOUT = Stdout()


def open_closed() -> None:
    """Opens the null device as stdout or stderr if the shell has closed it, as in `train.py >&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - stays open


def hides_bars() -> bool:
    """Returns True if --quiet is given, stderr isn't a terminal or stdout is a pipe.

    Whatever reads the pipe, such as tee, may print to the same terminal, in the middle of a bar.
    """
    if STDOUT.is_quiet or sys.stderr is None or not sys.stderr.isatty():
        return True
    return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)


def complain(line: str) -> None:
    """Prints a line to stderr, above any progress bar; if stderr is gone, prints nothing."""
    try:
        with tqdm.external_write_mode(file=sys.stderr):
            print(line, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _continue_on_stderr(text: str) -> None:
    """Sends the `text`, and everything that is written to stdout from now on, to stderr."""
    _silence(sys.stdout)  # the buffer may still hold a part of the text
    try:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Sends the stream's buffered text, and everything written to the stream later, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    stream.flush()

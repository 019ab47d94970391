"""Signals that ask a run to stop: obeyed at once, or deferred to a point where the run can be resumed."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

from retinanet.runtime.errors import Stopped

Item = TypeVar("Item")
# A cluster sends SIGUSR1 shortly before the time is up; a terminal that is closed sends SIGHUP.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
SAME_REQUEST = 3.0  # seconds within which a signal may arrive twice: from the terminal, and from a shell or launcher


class StopRequests:
    """The stop that a signal asked for. There is one, as a process has one handler for each signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._deferred = False
        self._first_at = 0.0  # when it was asked for
        self._process = os.getpid()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Inside, a signal raises Stopped; afterwards the earlier handlers are restored. For the main thread.

        A signal that was ignored before, as SIGHUP is under nohup and SIGINT in a script's background, stays ignored.
        """
        heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self.signal_number, self._deferred, self._process = None, False, os.getpid()
        before = {number: signal.signal(number, self._heed) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.signal_number = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets `signal_number`; a second SIGINT ends the process at once."""
        was_deferred, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = was_deferred

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Inside, a signal waits; Stopped is raised at the end if it would have been inside."""
        with self.deferred():
            yield
        if self.signal_number is not None and not self._deferred:
            raise Stopped(self.signal_number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, within `deferred`, a signal raises Stopped after all, and so does an earlier one."""
        was_deferred, self._deferred = self._deferred, False
        try:
            if self.signal_number is not None:
                raise Stopped(self.signal_number)
            yield
        finally:
            self._deferred = was_deferred

    def stoppable(self, items: Iterable[Item]) -> Iterator[Item]:
        """The `items`; a signal raises Stopped while the next one is awaited."""
        iterator = iter(items)
        while True:
            with self.at_once():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or self._is_same_request(number):  # a worker that ignores none yet; or told
            return
        if number == self.signal_number == signal.SIGINT and self._deferred:
            end_workers()
            os._exit(128 + number)
        if self.signal_number is None:
            self.signal_number, self._first_at = number, time.monotonic()
        if not self._deferred:
            raise Stopped(number)

    def _is_same_request(self, number: int) -> bool:
        """Whether a signal of this number is an earlier one again. A user's second Ctrl-C is not, of one process."""
        if self.signal_number != number or time.monotonic() - self._first_at >= SAME_REQUEST:
            return False
        return number != signal.SIGINT or int(os.environ.get("WORLD_SIZE", 1)) > 1


STOP = StopRequests()


def ignore_in_worker(_worker: int) -> None:
    """A loader's worker_init_fn: it leaves a signal to the process group to the main process.

    When a stop makes the main process drop a batch, the worker's thread that hands over its memory finds nobody there,
    which Python would print as a traceback.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _print_unless_dropped


def _print_unless_dropped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)


def end_workers() -> None:
    """Kill the loaders' worker processes, even one that hangs; they hold nothing that could be lost."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report them as dead
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()

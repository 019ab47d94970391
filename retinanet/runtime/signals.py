"""Stops a run on a signal, either at once or at the next point from which the run can be resumed."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from types import FrameType, TracebackType
from typing import TypeVar

from retinanet.runtime.errors import Stopped
from retinanet.runtime.resource_errors import end_worker_without_room

Item = TypeVar("Item")
# Clusters send SIGUSR1 shortly before a job's time is up; closing a terminal sends SIGHUP.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
SAME_REQUEST = 3.0  # seconds within which one request may arrive twice: from the terminal and from a launcher


class StopRequests:
    """Remembers which signal asked for a stop. A process has one instance, as it has one handler for each signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._deferred = False
        self._first_at = 0.0  # when the signal arrived, on the monotonic clock
        self._process = os.getpid()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Inside the block, a signal raises Stopped; afterwards the earlier handlers are restored.

        Only the main thread may use this. A signal that was already ignored, such as SIGHUP under nohup or SIGINT in a
        script's background job, stays ignored.
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
        """Inside the block, a signal only sets `signal_number`; a second SIGINT ends the process at once."""
        was_deferred, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = was_deferred

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Defers signals inside the block.

        If a signal arrived, leaving the block raises Stopped, unless the block is inside a `deferred` block.
        """
        with self.deferred():
            yield
        if self.signal_number is not None and not self._deferred:
            raise Stopped(self.signal_number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block, a signal raises Stopped even within `deferred`; an earlier signal raises it on entry."""
        was_deferred, self._deferred = self._deferred, False
        try:
            if self.signal_number is not None:
                raise Stopped(self.signal_number)
            yield
        finally:
            self._deferred = was_deferred

    def stoppable(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the `items`; a signal raises Stopped while the next item is awaited."""
        iterator = iter(items)
        while True:
            with self.at_once():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that doesn't ignore signals yet
            return
        if self._is_same_request(number):
            return
        if number == self.signal_number == signal.SIGINT and self._deferred:
            end_workers()
            os._exit(128 + number)
        if self.signal_number is None:
            self.signal_number, self._first_at = number, time.monotonic()
        if not self._deferred:
            raise Stopped(number)

    def _is_same_request(self, number: int) -> bool:
        """Returns True if the signal is a duplicate of the earlier request.

        A second Ctrl-C to a single process is not a duplicate but a new request.
        """
        if self.signal_number != number or time.monotonic() - self._first_at >= SAME_REQUEST:
            return False
        return number != signal.SIGINT or int(os.environ.get("WORLD_SIZE", 1)) > 1


STOP = StopRequests()


def ignore_in_worker(_worker: int) -> None:
    """As a worker_init_fn, makes a loader's worker ignore the stop signals, which the main process handles.

    If the main process stops and drops a batch, the worker thread that hands over the batch's memory can't connect to
    the main process; the traceback of this failure is suppressed. If a batch can't be sent, the worker ends, because
    the main process would otherwise wait for the batch.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _print_unless_dropped
    Queue._on_queue_feeder_error = staticmethod(_end_after)  # type: ignore[attr-defined]


def _print_unless_dropped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    end_worker_without_room(error)
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _end_after(error: BaseException, _batch: object) -> None:
    """Ends the worker, whose queue lost a batch because of `error`."""
    end_worker_without_room(error)
    sys.__excepthook__(type(error), error, error.__traceback__)
    os._exit(1)


def end_workers() -> None:
    """Kills the loaders' worker processes, even hanging ones; they hold nothing that could be lost."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report the workers as dead
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()

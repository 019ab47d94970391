"""Decodes the val set's pictures early, because a bad one would end the run at its first evaluation, hours later."""

import os
import threading
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool

from tqdm import tqdm

from retinanet.data.dataset import CocoDataset
from retinanet.runtime.errors import OutOfResources
from retinanet.runtime.ranks import Ranks, num_local_ranks
from retinanet.runtime.streams import hides_bars

MOST_AT_START = 2000  # a val set up to this size is decoded before the first step, a larger set during the first epoch
MOST_THREADS = 16


class ValPictures:
    """Decodes this rank's share of the pictures in `dataset`, unless all of them were decoded earlier."""

    def __init__(self, dataset: CocoDataset, ranks: Ranks, *, timeout: float, is_resumed: bool) -> None:
        self.dataset, self.ranks, self.timeout = dataset, ranks, timeout
        self.is_resumed = is_resumed
        self.are_decoded = is_resumed or bool(dataset.headers and dataset.headers.are_decoded)
        self.rows = range(ranks.rank, len(dataset), ranks.size)
        self.thread: threading.Thread | None = None
        self.is_closed = threading.Event()
        self.fault: Exception | None = None

    def decode_few(self) -> None:
        """Decodes the pictures, if there are at most MOST_AT_START.

        Raises UserError if a picture can't be read, and OutOfResources if one takes longer than `timeout`.
        """
        if not self.are_decoded and len(self.dataset) <= MOST_AT_START:
            cores = max(1, (os.cpu_count() or 1) // num_local_ranks(self.ranks))
            bar = tqdm(total=len(self.rows), desc="Val images", leave=False, disable=hides_bars())
            with bar, ThreadPool(min(MOST_THREADS, cores)) as threads:
                results = threads.imap(self._decode, self.rows)
                for row in self.rows:
                    try:
                        results.next(self.timeout)
                    except TimeoutError:
                        raise OutOfResources(
                            f"{self.dataset.path(row)}: wasn't read in {self.timeout:g} s: the file or the disk hangs. "
                            "Fix that, or raise --timeout if the disk is that slow."
                        ) from None
                    bar.update()
            self.are_decoded = True
        self.ranks.wait()
        self.note()

    def start(self) -> None:
        """Starts decoding in a thread. Call this after the first step, when the loader's workers have been forked."""
        if not self.are_decoded and self.thread is None:
            self.thread = threading.Thread(target=self._decode_all, daemon=True)
            self.thread.start()

    def check(self) -> None:
        """Raises UserError if the thread has come across a picture that can't be read."""
        if self.fault:
            raise self.fault

    def finish(self) -> None:
        """Waits for the thread. Raises UserError if the thread came across a picture that can't be read."""
        if self.thread:
            self.thread.join()
            self.check()
            self.thread, self.are_decoded = None, True

    def note(self) -> None:
        """If all pictures have been decoded, notes that in the header cache.

        Call this after ranks.wait(), because the note also covers the other ranks' shares.
        """
        headers = self.dataset.headers
        if self.are_decoded and not self.is_resumed and headers and not headers.are_decoded:
            self.dataset.headers = headers._replace(are_decoded=True)
            if self.ranks.is_first:
                self.dataset.headers.save()

    def close(self) -> None:
        self.is_closed.set()

    def _decode(self, row: int) -> None:
        self.dataset.original(row)

    def _decode_all(self) -> None:
        try:
            for row in self.rows:
                if self.is_closed.is_set():
                    return
                self._decode(row)
        except Exception as fault:  # the main thread raises it
            self.fault = fault

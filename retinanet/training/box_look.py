"""Checks during the first epoch, on a sample of the training images, whether the boxes fit what the images show."""

import threading

import numpy as np

from retinanet.data.box_fit import BoxFit
from retinanet.data.box_verdict import NO_READING, OTHERWISE, Verdict, judge, words_of
from retinanet.data.dataset import CocoDataset
from retinanet.data.edges import edges_of
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError

MOST_IMAGES = 150
SEED = 0


class BoxLook:
    """Checks in a thread whether the boxes of some images fit their pictures.

    This is done once per header-cache entry, and never in a resumed run.
    """

    def __init__(self, dataset: CocoDataset, check_command: str, *, is_wanted: bool) -> None:
        self.dataset, self.check_command = dataset, check_command
        self.is_over = not is_wanted or bool(dataset.headers and dataset.headers.are_boxes_judged)
        self.thread: threading.Thread | None = None
        self.is_closed = threading.Event()
        self.verdict: Verdict | None = None

    def start(self) -> None:
        """Starts the thread. Call this after the first step, when the loader's workers have been forked."""
        if not self.is_over and self.thread is None:
            self.thread = threading.Thread(target=self._look, daemon=True)
            self.thread.start()

    def report(self, *, waits: bool = False) -> None:
        """Warns if the thread found that the boxes don't fit the images. With `waits`, first waits for the thread."""
        if self.is_over or self.thread is None or (self.thread.is_alive() and not waits):
            return
        self.thread.join()
        self.is_over = True
        if self.verdict and self.verdict.kind in (OTHERWISE, NO_READING):
            path = self.dataset.annotations.path
            say(f"Warning: the boxes of {path} {words_of(self.verdict)}. See {self.check_command}")
        if self.verdict and self.dataset.headers:
            self.dataset.headers = self.dataset.headers._replace(are_boxes_judged=True)
            if self.dataset.headers.entry:
                self.dataset.headers.save()

    def close(self) -> None:
        self.is_closed.set()

    def _look(self) -> None:
        annotations = self.dataset.annotations
        images = np.flatnonzero(np.diff(annotations.first) > 0)
        if len(images) > MOST_IMAGES:
            images = np.sort(np.random.default_rng(SEED).choice(images, MOST_IMAGES, replace=False))
        fit = BoxFit(annotations, images)
        for image in images.tolist():
            if self.is_closed.is_set():
                return
            try:
                pixels = self.dataset.original(image)
            except UserError:  # what happens to a picture that can't be read is decided where training reads it
                continue
            fit.add(fit.look(image, edges_of(pixels)))
        self.verdict = judge(fit.scores())

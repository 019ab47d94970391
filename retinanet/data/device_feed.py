"""Moves batches to the device, refuses or counts unreadable images, and measures the time spent waiting for batches."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from retinanet.data.batches import Batch, Loaded
from retinanet.data.images import CHANGED
from retinanet.detector.structures import Targets
from retinanet.runtime.errors import UserError
from retinanet.runtime.resource_errors import COPY_ADVICE, memory_explained, named

MOST_BAD_SHARE, MOST_BAD = 0.01, 5  # the fraction of images that may be skipped, or the number in a small set


class BadImages:
    """Refuses unreadable images. With `skip`, only counts them until there are too many, but refuses changed images."""

    def __init__(self, num_images: int, skip: bool) -> None:
        self.num_images, self.skip = num_images, skip
        self.most = max(MOST_BAD_SHARE * num_images, min(MOST_BAD, num_images // 2))
        self.messages: set[str] = set()
        self.new_messages: list[str] = []

    def passing(self, loaded: Iterable[Loaded]) -> Iterator[Batch]:
        """Yields the batches, which may be empty. Raises UserError at an unreadable image that may not be skipped."""
        for batch, messages in loaded:
            for message in messages:
                self._add(message)
            yield batch

    def take_new_messages(self) -> list[str]:
        """Returns the messages added since the last call, at most one per image."""
        messages, self.new_messages = self.new_messages, []
        return messages

    def _add(self, message: str) -> None:
        if not self.skip or CHANGED in message:  # others may have changed too, and their boxes may be wrong
            raise UserError(message)
        if message in self.messages:
            return
        self.new_messages.append(message)
        self.count(message)

    def count(self, message: str) -> None:
        """Counts the image named in `message`, which may come from another rank. Raises UserError above the limit."""
        self.messages.add(message)
        if len(self.messages) > self.most:
            raise UserError(
                f"{message} This is bad image {len(self.messages)} of {self.num_images}, and --bad_images skip allows "
                f"only {int(self.most)}. Fix the dataset."
            )


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches with their tensors on `device`; a GPU copies them while the previous step is still running."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    for batch in batches:
        with memory_explained(named(batch.images), COPY_ADVICE), torch.cuda.stream(stream):
            targets = Targets(*(tensor.to(device, non_blocking=True) for tensor in batch.targets))
            images, sizes, scales = (t.to(device, non_blocking=True) for t in (batch.images, batch.sizes, batch.scales))
        if stream is not None:
            step_stream = torch.cuda.current_stream(device)
            step_stream.wait_stream(stream)
            for tensor in (
                images,
                sizes,
                scales,
                *targets,
            ):  # otherwise their memory may be reused while the step still needs it
                tensor.record_stream(step_stream)
        yield batch._replace(images=images, targets=targets, sizes=sizes, scales=scales)


def in_steps(batches: Iterable[Batch], accumulate: int = 1) -> Iterator[list[Batch]]:
    """Groups the batches into training steps of `accumulate` batches each; the last step may have fewer."""
    batches = iter(batches)
    while step := list(islice(batches, accumulate)):
        yield step


class OneAhead:
    """Passes batches on; `fetch` loads the next batch early."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = iter(batches)
        self.fetched: list[Batch | None] = []  # at most one batch; None marks the end

    def __iter__(self) -> "OneAhead":
        return self

    def __next__(self) -> Batch:
        self.fetch()
        batch = self.fetched.pop()
        if batch is None:
            raise StopIteration
        return batch

    def fetch(self) -> None:
        if not self.fetched:
            self.fetched.append(next(self.batches, None))


class WaitClock:
    """Passes on the batches of each step, and measures how many seconds the device sat idle waiting for them."""

    def __init__(self, steps: Iterable[list[Batch]], device: torch.device) -> None:
        self.steps, self.waited = steps, 0.0
        self.step_done = torch.cuda.Event() if device.type == "cuda" else None

    def __iter__(self) -> Iterator[list[Batch]]:
        asked = time.perf_counter()
        for step in self.steps:
            # A GPU keeps working while the host waits for new batches; it was idle if it finished before they came.
            if self.step_done is None or self.step_done.query():
                self.waited += time.perf_counter() - asked
            yield step
            if self.step_done is not None:
                self.step_done.record()  # by the time the next batches are requested, the step has been launched
            asked = time.perf_counter()

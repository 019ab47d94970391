"""Trackers of runs: named numbers at a step, sent to libraries that show them, none of which can stop a training."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from retinanet.runtime.printable import printable
from retinanet.runtime.streams import complain


class Tracker(Protocol):
    """One library's run."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def picture(self, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class TrackedRun(NamedTuple):
    """What a tracker is told at the start."""

    folder: Path  # the run's own, in which a tracker may keep files
    name: str
    settings: dict[str, Any]  # as run.json holds them
    step: int  # steps done: 0, or from where the run is resumed


class Trackers:
    """The trackers of a run. One that fails is named once on stderr and left alone from then on."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self.working = dict(trackers)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The finite ones of the `numbers` after `step` steps of the run."""
        finite = {name: float(number) for name, number in numbers.items() if math.isfinite(number)}
        self._each(lambda tracker: tracker.log(step, finite))

    def pictures(self, paths: Mapping[str, Path]) -> None:
        for name, path in paths.items():
            self._each(lambda tracker, name=name, path=path: tracker.picture(name, path))  # type: ignore[misc]

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for kind, tracker in list(self.working.items()):
            try:
                do(tracker)
            except Exception as fault:  # whatever a library, its disk or its server raises
                del self.working[kind]
                report_failure(kind, fault)


NO_TRACKERS = Trackers({})


def report_failure(kind: str, fault: Exception) -> None:
    message = printable(f"{type(fault).__name__}: {fault}")[:300]
    complain(f"train.py: --track {kind} failed and is off from here on ({message}). Training goes on.")

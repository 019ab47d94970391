"""Training steps that may not wait, in whole runs of train.py."""

from collections.abc import Iterator
from typing import Any

from gpu.cases import waits_forbidden
from retinanet import train_setup


def forbid_waits_in_steps(monkeypatch: Any) -> None:
    """Have a step, the loading of its batches included, raise where it makes the host wait. Between steps anything may."""
    train_steps = train_setup.train_steps

    def strict(*args: Any, **kwargs: Any) -> Iterator[float]:
        steps = train_steps(*args, **kwargs)
        while True:
            with waits_forbidden():
                rate = next(steps, None)
            if rate is None:
                return
            yield rate

    monkeypatch.setattr(train_setup, "train_steps", strict)

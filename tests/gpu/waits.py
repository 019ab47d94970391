"""Where a GPU's host may not wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from retinanet import train_setup


@contextmanager
def waits_forbidden() -> Iterator[None]:
    """In here an operation that makes the host wait for a GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def forbid_waits_in_steps(monkeypatch: Any) -> None:
    """Forbid them in each step of train.py, the loading of its batches included. Between steps anything may wait."""
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

"""Forbids the host of a GPU to wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from retinanet.evaluation import detect_set
from retinanet.training import engine


@contextmanager
def waits_forbidden() -> Iterator[None]:
    """In here an operation that makes the host wait for a GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def forbid_waits_in(monkeypatch: Any, module: ModuleType, name: str) -> None:
    """Forbid them in the generator `name` as `module` calls it. What its caller does between two items may wait."""
    generator = getattr(module, name)

    def strict(*args: Any, **kwargs: Any) -> Iterator[Any]:
        items = generator(*args, **kwargs)
        while True:
            with waits_forbidden():
                item = next(items, None)
            if item is None:
                return
            yield item

    monkeypatch.setattr(module, name, strict)


def forbid_waits_in_runs(monkeypatch: Any) -> None:
    """Forbid them in train.py's steps and in detection until its suppression, the loading of batches included."""
    forbid_waits_in(monkeypatch, engine, "train_steps")
    forbid_waits_in(monkeypatch, detect_set, "merged_views")

"""The states of all random numbers that a run could draw, as plain data for a checkpoint."""

import random
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python, NumPy and PyTorch, with that of `device` if it is a GPU."""
    version, python, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the state that anybody's code may draw from
    assert isinstance(keys, np.ndarray)
    return {
        "python": [version, list(python), gauss],
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)

"""Loads the repository's scripts, so that tests can call them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TINY = ("--depth", 18, "--channels", 16, "--weights", "none", "--min_side", 64, "--max_side", 96, "--device", "cpu")


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def load_script(name: str) -> ModuleType:
    """Returns a script as a module; by path, because Python's own library has a module called test."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

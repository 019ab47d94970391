"""Loads the repository's scripts, so that tests can call them."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TINY = ("--depth", 18, "--channels", 16, "--weights", "none", "--min_side", 64, "--max_side", 96, "--device", "cpu")


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def run_script(name: str) -> None:
    """Runs a script in the repository's root as `__main__`, with the current `sys.argv`; ends with SystemExit."""
    path = ROOT / f"{name}.py"  # runpy would change sys.argv
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})

"""Executes the runs in accuracy.md, several at a time, and stops them at a deadline."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.accuracy.rows import Run, filled

ROOT = Path(__file__).parents[2]
SECONDS_BETWEEN_LOOKS = 0.2
Finish = Callable[[Run, int], None]  # with the code of the run's last command


class Active(NamedTuple):
    run: Run
    process: subprocess.Popen[bytes]
    commands_left: list[list[str]]


def execute(
    runs: Sequence[Run],
    places: Mapping[str, str],
    finish: Finish,
    *,
    jobs: int = 1,
    deadline: float = float("inf"),
    more: Sequence[str] = (),
) -> None:
    """Runs the commands of each run, up to the first that fails, and calls `finish` for each run that has ended.

    Up to `jobs` runs are active at a time. At the `deadline` (on the clock of time.monotonic), or on a signal, all
    active runs are asked to stop. The arguments in `more` are appended to each command.
    """
    waiting, active = list(runs), list[Active]()
    try:
        while (waiting or active) and time.monotonic() < deadline:
            while waiting and len(active) < jobs:
                active.append(_start(waiting[0], waiting.pop(0).commands, places, more))
            for one in list(active):
                code = one.process.poll()
                if code is None:
                    continue
                active.remove(one)
                if code == 0 and one.commands_left:
                    active.append(_start(one.run, one.commands_left, places, more))
                else:
                    finish(one.run, code)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for one in active:
            one.process.terminate()  # train.py then saves its state for --resume
        for one in active:
            one.process.wait()


def _start(run: Run, commands: list[list[str]], places: Mapping[str, str], more: Sequence[str]) -> Active:
    log = log_of(run, places)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, *filled(commands[0][1:], places), *more]
    with log.open("ab") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    return Active(run, process, commands[1:])


def log_of(run: Run, places: Mapping[str, str]) -> Path:
    """Returns the path of a run's log file. It is not in the run's folder, because only the run writes there."""
    return Path(f"{filled([run.folder], places)[0]}.log")


def last_line(run: Run, places: Mapping[str, str]) -> str:
    return log_of(run, places).read_text(errors="replace").strip().rpartition("\n")[2]

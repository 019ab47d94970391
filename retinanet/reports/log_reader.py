"""Reads logs of this and older versions of train.py and test.py, written by --log_dir or by `tee` on any system."""

import glob
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.evaluation.coco_table import LINES
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.log_file import ENDING, parse_name
from retinanet.runtime.text_files import encoding_of
from retinanet.settings.train import STEP

NUMBER = r"([-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|nan|inf))"
NOT_CUT = r"(?![^\s|])"  # must follow a number, or the number may be cut off
COUNT = r"([0-9]{1,9})"
LOSSES = tuple(f"{kind} loss: *{NUMBER}{NOT_CUT}" for kind in ("Classification", "Regression", "Running"))
POINT = re.compile(r" *\| *".join((f"Epoch: *{COUNT}", f"Iteration: *{COUNT}", *LOSSES)))
RATE_FIELD = re.compile(rf"\| *Learning rate: *{NUMBER}{NOT_CUT}")
EPOCH_TOOK = re.compile(rf"^Epoch {COUNT} took .*, mean loss {NUMBER}\. ")
LOSS_LIST = re.compile(r"^(epoch_loss_list:?\s*)?\[([^\[\]]*)\]", re.MULTILINE)
RESUMED = re.compile(rf"^Resumed from .* after {COUNT} epochs and {COUNT} iterations$")
CHECKPOINT = re.compile(rf"^Checkpoint: .*, after {COUNT} epochs$")
SETTINGS_LINE = re.compile(r"Settings: (\{.*\})$")
TABLE = re.compile(
    rf"\((A[PR])\) *@\[ *IoU=([0-9.:]+) *\| *area= *(\w+) *\| *maxDets= *{COUNT} *\] *= *(-?[0-9]\.[0-9]{{3}}|nan)$"
)
TABLE_KEYS = [(short.strip("()"), iou, area, str(most)) for _, short, iou, area, most in LINES]
TIME = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} ", re.MULTILINE)  # of --log_time
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # a terminal's colours and cursor movements


class Point(NamedTuple):
    """Holds the numbers in a log line that reports losses."""

    epoch: int  # counted from 0
    iteration: int
    classification: float
    regression: float
    running: float
    learning_rate: float | None


class RunLog(NamedTuple):
    """Holds the contents of a log, or of all logs of a resumed run."""

    path: Path
    points: list[Point]
    epoch_losses: dict[int, float]  # mean loss by epoch, counted from 0
    tables: dict[int | None, list[float]]  # the twelve COCO metrics by the number of epochs finished (None if unknown)
    settings: dict[str, Any]  # train.py's flags from the Settings line, otherwise from the log's name
    drops: list[int]  # epochs in which the learning rate dropped
    is_resumed: bool = False  # the log continues where an earlier log of the run ends
    is_of_test: bool = False  # without losses: a log of test.py, not of a run that was stopped before its first losses

    @property
    def has_losses(self) -> bool:
        """Returns True for a log of train.py, and False for one of test.py."""
        return bool(self.points or self.epoch_losses)


def read_logs(places: Sequence[Path]) -> tuple[list[RunLog], list[Path]]:
    """Reads the logs at `places`: files, folders with their subfolders, and globs.

    The logs of a resumed run are joined into one. Also returns the folders' .log files that contain no run. Raises
    UserError if a folder contains no log, a glob matches nothing, a file can't be read, or a file in `places` contains
    no run.
    """
    logs: dict[Path, RunLog | None] = {}
    for place in places:
        for each in _matches(place):
            if each.is_dir():
                in_folder = {path: _read_log(path) for path in sorted(each.rglob(f"*{ENDING}")) if path.is_file()}
                if not any(in_folder.values()):
                    raise UserError(f"{each}: contains no log of train.py or test.py (*{ENDING}). Check the path.")
                logs |= in_folder
            else:
                logs[each] = read_log(each)
    return _joined([log for log in logs.values() if log]), [path for path, log in logs.items() if log is None]


def _joined(logs: Sequence[RunLog]) -> list[RunLog]:
    """Returns the logs in the given order; a resumed run's logs become one, at the position of its first log."""
    by_number = sorted(logs, key=lambda log: parse_name(log.path.name).number or 0)
    starts: dict[tuple[Path, str], list[Path]] = {}  # the logs of the run that was last started, by its output folder
    runs = []
    for log in by_number:
        key = log.path.parent, str(log.settings.get("output_path"))
        if log.is_resumed and key in starts:
            starts[key].append(log.path)
        elif not log.is_of_test:
            starts[key] = [log.path]
            runs.append(starts[key])
        else:
            runs.append([log.path])
    places = {log.path: place for place, log in enumerate(logs)}
    joined = (
        _read_log(*paths) if len(paths) > 1 else logs[places[paths[0]]]
        for paths in sorted(runs, key=lambda paths: places[paths[0]])
    )
    return [log for log in joined if log]


def _matches(place: Path) -> list[Path]:
    if place.exists() or not glob.has_magic(str(place)):
        return [place]
    paths = [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    if not paths:
        raise UserError(f"{place}: matches no file. Check the path.")
    return paths


def read_log(path: Path) -> RunLog:
    """Reads a log of train.py or test.py. Raises UserError if the file can't be read or contains no run."""
    log = _read_log(path)
    if log is None:
        raise UserError(f"{path}: contains neither losses nor a table. Use a log of train.py or test.py.")
    return log


def _read_log(path: Path, *resumed: Path) -> RunLog | None:
    """Reads the log `path` and, as its continuation, the logs `resumed`; returns None if they contain no run."""
    reader = _Reader()
    for each in (path, *resumed):
        for line in _lines(each):
            reader.read(line)
    if not (reader.points or reader.epoch_losses or reader.tables or reader.settings):
        return None
    settings = reader.settings or {
        name: value
        for name, value in parse_name(path.name)._asdict().items()
        if value is not None and name not in ("kind", "number")
    }
    # With a cosine schedule, the learning rate drops at every line.
    drops = _drops(reader.points, settings.get("milestones")) if settings.get("schedule", STEP) == STEP else []
    has_losses = bool(reader.points or reader.epoch_losses)
    is_of_test = not has_losses and not reader.is_resumed and (reader.is_of_checkpoint or bool(reader.tables))
    return RunLog(
        path, reader.points, reader.epoch_losses, reader.tables, settings, drops, reader.is_resumed, is_of_test
    )


def _lines(path: Path) -> list[str]:
    """Returns the log's lines, with each list of losses joined into one line, even if a terminal wrapped the list."""
    with file_error_explained(path, "can't be read", "Use a log of train.py or test.py."):
        content = path.read_bytes()
    text = content.decode(encoding_of(content), errors="replace")
    text = TIME.sub("", ESCAPES.sub("", text).replace("\r", "\n"))  # the text of a progress bar ends with \r
    lines = LOSS_LIST.sub(lambda match: "".join(match[0].split()) + "\n", text).split("\n")
    if POINT.search(lines[-1]):  # the log may end in the middle of a number
        lines[-1] = lines[-1].rpartition("|")[0]
    return [line.rstrip() for line in lines]


class _Reader:
    """Reads a log line by line; lines that a resumed run repeats replace the earlier lines."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.epoch_losses: dict[int, float] = {}
        self.tables: dict[int | None, list[float]] = {}
        self.settings: dict[str, Any] = {}
        self.is_resumed = False  # True if a line before the first losses says that the run was resumed
        self.is_of_checkpoint = False  # True if a line names the checkpoint that is evaluated
        self.epoch: int | None = None  # epochs finished when the next table is printed
        self._table: list[float] = []  # the part read so far

    def read(self, line: str) -> None:
        if match := POINT.search(line):
            self._add_point(match, RATE_FIELD.search(line, match.end()))
        elif match := TABLE.search(line):
            self._add_to_table(match)
        elif match := LOSS_LIST.match(line):
            self._take_list(match)
        elif match := EPOCH_TOOK.match(line):
            self.epoch_losses[int(match[1])] = float(match[2])
        elif match := RESUMED.match(line):
            self.epoch = int(match[1])
            self.is_resumed |= not (self.points or self.epoch_losses)
            self._go_back(self.epoch, int(match[2]) + 1)
        elif match := CHECKPOINT.match(line):
            self.is_of_checkpoint = True
            self.epoch = int(match[1])
        elif match := SETTINGS_LINE.search(line):
            self.settings = _settings(match[1]) or self.settings

    def _add_point(self, match: re.Match[str], rate: re.Match[str] | None) -> None:
        epoch, iteration = int(match[1]), int(match[2])
        if self.points and self.points[-1][:2] >= (epoch, iteration):
            self._go_back(epoch, iteration)
        losses = (float(match[3]), float(match[4]), float(match[5]))
        self.points.append(Point(epoch, iteration, *losses, float(rate[1]) if rate else None))
        self.epoch = epoch + 1

    def _go_back(self, epoch: int, iteration: int) -> None:
        """Discards what was read for the given iteration and all later ones."""
        while self.points and self.points[-1][:2] >= (epoch, iteration):
            self.points.pop()
        self.epoch_losses = {earlier: loss for earlier, loss in self.epoch_losses.items() if earlier < epoch}
        self.tables = {end: table for end, table in self.tables.items() if end is None or end <= epoch}

    def _add_to_table(self, match: re.Match[str]) -> None:
        key = match.groups()[:4]
        if key == TABLE_KEYS[0]:
            self._table = []
        if key == TABLE_KEYS[len(self._table)]:
            self._table.append(float(match[5]))
        if len(self._table) == len(TABLE_KEYS):
            self.tables[self.epoch], self._table = self._table, []

    def _take_list(self, match: re.Match[str]) -> None:
        losses = _numbers(match[2])
        # A list without its header counts if it has a number for each epoch.
        if losses and (match[1] or len(losses) == self.epoch):
            self.epoch_losses = dict(enumerate(losses))


def _numbers(text: str) -> list[float]:
    """Parses a list of numbers, possibly in NumPy 2's notation; returns an empty list if `text` holds anything else."""
    items = re.sub(r"(?:np|numpy)\.float[0-9]+\(([^()]*)\)", r"\1", text).removesuffix(",").split(",")
    return [float(item) for item in items] if all(re.fullmatch(NUMBER, item) for item in items) else []


def _settings(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # a damaged line
        return {}
    return content if isinstance(content, dict) else {}


def _drops(points: list[Point], milestones: Any) -> list[int]:
    rates = [(point.epoch, point.learning_rate) for point in points if point.learning_rate is not None]
    if rates:
        return [epoch for (_, before), (epoch, rate) in pairwise(rates) if rate < before]
    begun = points[-1].epoch if points else 0
    if not isinstance(milestones, list):
        return []
    return sorted({epoch for epoch in milestones if type(epoch) is int and 0 < epoch <= begun})

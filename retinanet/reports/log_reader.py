"""Reads logs of train.py and test.py, from --log_dir or from `tee` on any system, of this or older versions."""

import codecs
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.evaluation.coco_table import LINES
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.log_file import parse_name
from retinanet.settings.train import STEP

NUMBER = r"([-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|nan|inf))"
NOT_CUT = r"(?![^\s|])"  # must follow a number, or it may be cut off
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
    """A log line of losses."""

    epoch: int  # from 0
    iteration: int
    classification: float
    regression: float
    running: float
    learning_rate: float | None


class RunLog(NamedTuple):
    """The content of a log."""

    path: Path
    points: list[Point]
    epoch_losses: dict[int, float]  # the mean loss of each epoch, from 0
    tables: dict[int | None, list[float]]  # COCO's twelve numbers by epochs finished; None if unknown
    settings: dict[str, Any]  # train.py's flags from the Settings line, otherwise from the log's name
    drops: list[int]  # epochs in which the learning rate dropped


def read_log(path: Path) -> RunLog:
    """Reads a log of train.py or test.py. Raises UserError if it can't be read or contains no run."""
    reader = _Reader()
    for line in _lines(path):
        reader.read(line)
    if not (reader.points or reader.epoch_losses or reader.tables or reader.settings):
        raise UserError(f"{path}: contains neither losses nor a table. Use a log of train.py or test.py.")
    settings = reader.settings or {
        name: value
        for name, value in parse_name(path.name)._asdict().items()
        if value is not None and name not in ("kind", "number")
    }
    # With a cosine schedule the rate drops at every line.
    drops = _drops(reader.points, settings.get("milestones")) if settings.get("schedule", STEP) == STEP else []
    return RunLog(path, reader.points, reader.epoch_losses, reader.tables, settings, drops)


def _lines(path: Path) -> list[str]:
    """Returns the log's lines, with each list of losses on its own line, however it was wrapped."""
    with file_error_explained(path, "can't be read", "Use a log of train.py or test.py."):
        content = path.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell writes UTF-16
    text = content.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")
    text = TIME.sub("", ESCAPES.sub("", text).replace("\r", "\n"))  # the text of a progress bar ends with \r
    lines = LOSS_LIST.sub(lambda match: "".join(match[0].split()) + "\n", text).split("\n")
    if POINT.search(lines[-1]):  # the log may end in the middle of a number
        lines[-1] = lines[-1].rpartition("|")[0]
    return [line.rstrip() for line in lines]


class _Reader:
    """Reads the lines in order; lines that a resumed run repeats replace the earlier ones."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.epoch_losses: dict[int, float] = {}
        self.tables: dict[int | None, list[float]] = {}
        self.settings: dict[str, Any] = {}
        self.epoch: int | None = None  # epochs finished when the next table is printed
        self._table: list[float] = []  # as far as it has been read

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
            self._go_back(self.epoch, int(match[2]) + 1)
        elif match := CHECKPOINT.match(line):
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
        """Discards the lines of this iteration and of later ones."""
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
    """Returns the numbers of a list, perhaps as NumPy 2 writes them; an empty list if it holds anything else."""
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

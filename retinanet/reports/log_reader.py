"""Reads a log: from --log_dir or teed on any system, of these scripts or of older versions."""

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
NOT_CUT = r"(?![^\s|])"  # follows a number that was not cut off
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
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # a terminal's colours and cursor movements


class Point(NamedTuple):
    """A line of losses."""

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
    """Read a log of train.py or test.py. UserError if it can't be read or has no run in it."""
    reader = _Reader()
    for line in _lines(path):
        reader.read(line)
    if not (reader.points or reader.epoch_losses or reader.tables or reader.settings):
        raise UserError(f"{path}: no losses and no table in it. Give a log of train.py or test.py.")
    settings = reader.settings or {
        name: value
        for name, value in parse_name(path.name)._asdict().items()
        if value is not None and name not in ("kind", "number")
    }
    # With a cosine the rate drops at every line.
    drops = _drops(reader.points, settings.get("milestones")) if settings.get("schedule", STEP) == STEP else []
    return RunLog(path, reader.points, reader.epoch_losses, reader.tables, settings, drops)


def _lines(path: Path) -> list[str]:
    """The log's lines, with each list of losses on its own line, however it was wrapped."""
    with file_error_explained(path, "can't be read", "Give a log of train.py or test.py."):
        content = path.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
    text = content.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")
    text = ESCAPES.sub("", text).replace("\r", "\n")  # a progress bar's text ends with a \r
    lines = LOSS_LIST.sub(lambda found: "".join(found[0].split()) + "\n", text).split("\n")
    if POINT.search(lines[-1]):  # the log may end in the middle of a number
        lines[-1] = lines[-1].rpartition("|")[0]
    return [line.rstrip() for line in lines]


class _Reader:
    """Reads the lines in order; what a resumed run logs again replaces the earlier lines."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.epoch_losses: dict[int, float] = {}
        self.tables: dict[int | None, list[float]] = {}
        self.settings: dict[str, Any] = {}
        self.epoch: int | None = None  # epochs finished when a table is printed
        self._table: list[float] = []  # as far as it has been read

    def read(self, line: str) -> None:
        if found := POINT.search(line):
            self._add_point(found, RATE_FIELD.search(line, found.end()))
        elif found := TABLE.search(line):
            self._add_to_table(found)
        elif found := LOSS_LIST.match(line):
            self._take_list(found)
        elif found := EPOCH_TOOK.match(line):
            self.epoch_losses[int(found[1])] = float(found[2])
        elif found := RESUMED.match(line):
            self.epoch = int(found[1])
            self._go_back(self.epoch, int(found[2]) + 1)
        elif found := CHECKPOINT.match(line):
            self.epoch = int(found[1])
        elif found := SETTINGS_LINE.search(line):
            self.settings = _settings(found[1]) or self.settings

    def _add_point(self, found: re.Match[str], rate: re.Match[str] | None) -> None:
        epoch, iteration = int(found[1]), int(found[2])
        if self.points and self.points[-1][:2] >= (epoch, iteration):
            self._go_back(epoch, iteration)
        losses = (float(found[3]), float(found[4]), float(found[5]))
        self.points.append(Point(epoch, iteration, *losses, float(rate[1]) if rate else None))
        self.epoch = epoch + 1

    def _go_back(self, epoch: int, iteration: int) -> None:
        """Forget what was logged for this iteration and later ones."""
        while self.points and self.points[-1][:2] >= (epoch, iteration):
            self.points.pop()
        self.epoch_losses = {one: loss for one, loss in self.epoch_losses.items() if one < epoch}
        self.tables = {one: table for one, table in self.tables.items() if one is None or one <= epoch}

    def _add_to_table(self, found: re.Match[str]) -> None:
        key = found.groups()[:4]
        if key == TABLE_KEYS[0]:
            self._table = []
        if key == TABLE_KEYS[len(self._table)]:
            self._table.append(float(found[5]))
        if len(self._table) == len(TABLE_KEYS):
            self.tables[self.epoch], self._table = self._table, []

    def _take_list(self, found: re.Match[str]) -> None:
        losses = _numbers(found[2])
        # A list without its header counts if it has a number for each epoch.
        if losses and (found[1] or len(losses) == self.epoch):
            self.epoch_losses = dict(enumerate(losses))


def _numbers(text: str) -> list[float]:
    """The numbers of a list, perhaps as NumPy 2 writes them; empty if it holds anything else."""
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

"""Lists the hyper-parameters and results of runs in a Markdown table with one row per log."""

import statistics
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from retinanet.evaluation.coco_table import AP, AP50
from retinanet.reports.log_reader import RunLog
from retinanet.reports.tables import markdown_head, markdown_row, markdown_table
from retinanet.runtime.console import say
from retinanet.runtime.log_file import ENDING, rate_text
from retinanet.runtime.printable import markdown_cell

UNKNOWN = "-"
SETTING_COLUMNS = {  # column: flag
    **{"seed": "seed", "depth": "depth", "optimizer": "optimizer", "rate": "learning_rate", "batch": "batch_size"},
    **{name: name for name in ("epochs", "drop_last", "prior", "alpha", "gamma")},
}


def hyper_parameter_table(logs: Sequence[RunLog]) -> list[str]:
    """Returns a Markdown table of each log's settings, last AP and AP50, and best AP; `-` is an unknown value.

    Flags outside SETTING_COLUMNS get a column if their values differ between the logs.
    """
    flags = SETTING_COLUMNS | {name: name for name in _varying_flags(logs)}
    header = ("model", *map(markdown_cell, flags), "final loss", "AP", "AP50", "best AP", "epoch")
    return markdown_table(header, [_row(log, list(flags.values())) for log in logs])


def model_name(log: RunLog) -> str:
    """Returns the name of the run's output folder or, if that is unknown, of the log file."""
    folder = log.settings.get("output_path")
    name = Path(folder).name if isinstance(folder, str) else ""
    return name or log.path.name.removesuffix(ENDING)


def final_loss(log: RunLog) -> float | None:
    """Returns the mean loss of the last epoch or, if no epoch has one, the last running loss."""
    if log.epoch_losses:
        return log.epoch_losses[max(log.epoch_losses)]
    return log.points[-1].running if log.points else None


def _varying_flags(logs: Sequence[RunLog]) -> list[str]:
    values_of: dict[str, set[str]] = {}
    for log in logs:
        for name, value in log.settings.items():
            values_of.setdefault(name, set()).add(str(value))
    in_every_table = {"output_path", *SETTING_COLUMNS.values()}
    return [name for name, values in values_of.items() if len(values) > 1 and name not in in_every_table]


def _row(log: RunLog, flags: Sequence[str]) -> tuple[str, ...]:
    loss, table = final_loss(log), list(log.tables.values())[-1:]
    results = (
        UNKNOWN if loss is None else f"{loss:.5f}" if abs(loss) < 1e6 else f"{loss:g}",
        *(UNKNOWN if not table or table[0][row] < 0 else f"{table[0][row]:.3f}" for row in (AP, AP50)),
        *_best(log),
    )
    return (_markdown_text(model_name(log)), *(_cell(log.settings.get(flag)) for flag in flags), *results)


def _best(log: RunLog) -> tuple[str, str]:
    """Returns the best AP of a log and the epoch of that AP, as text."""
    aps = {epoch: numbers[AP] for epoch, numbers in log.tables.items() if epoch is not None and numbers[AP] >= 0}
    if not aps:
        return UNKNOWN, UNKNOWN
    epoch = max(aps, key=lambda epoch: aps[epoch])
    return f"{aps[epoch]:.3f}", str(epoch)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return (
            " ".join(_markdown_text(str(item)) if isinstance(item, list) else _cell(item) for item in value) or UNKNOWN
        )
    if isinstance(value, float) and 0 < value < 1:
        return rate_text(value)
    return _markdown_text(f"{value:g}" if isinstance(value, float) else str(value)) if value is not None else UNKNOWN


def _markdown_text(text: str) -> str:
    """Returns `text` as a Markdown table cell, or UNKNOWN if it is empty."""
    return markdown_cell(text) or UNKNOWN


def print_spread(numbers: dict[int, dict[str, float]]) -> None:
    """Prints the mean and standard deviation of each metric over the seeds as a Markdown table."""
    names = list(next(iter(numbers.values())))
    say(f"Over {len(numbers)} seeds, with the standard deviation of one run:")
    header = markdown_head("number", "mean", "deviation", *(f"seed {seed}" for seed in numbers), rule="---:")
    say(*header.splitlines())
    for name in names:
        values = [of_seed[name] for of_seed in numbers.values()]
        known = [value for value in values if not isnan(value)]
        mean = statistics.mean(known) if known else nan
        deviation = statistics.stdev(known) if len(known) > 1 else nan
        cells = ("-" if isnan(value) else f"{value:.4f}" for value in (mean, deviation, *values))
        say(markdown_row(markdown_cell(name), *cells))

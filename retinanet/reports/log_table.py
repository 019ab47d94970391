"""Lists the hyper-parameters and results of runs in a Markdown table with one row per log."""

import statistics
from collections.abc import Callable, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from retinanet.evaluation.coco_table import AP, AP50
from retinanet.reports.log_reader import RunLog
from retinanet.reports.run_names import output_folder, run_names
from retinanet.reports.tables import markdown_head, markdown_row, markdown_table
from retinanet.runtime.console import say
from retinanet.runtime.log_file import parse_name, rate_text
from retinanet.runtime.printable import counted, markdown_cell

UNKNOWN = "-"
OF_A_SEED = ("seed", "output_path")  # settings in which the runs of several seeds differ
SETTING_COLUMNS = {  # column: flag
    **{"seed": "seed", "depth": "depth", "optimizer": "optimizer", "rate": "learning_rate", "batch": "batch_size"},
    **{name: name for name in ("epochs", "drop_last", "prior", "alpha", "gamma")},
}


def hyper_parameter_table(logs: Sequence[RunLog]) -> list[str]:
    """Returns a Markdown table of each log's settings, final loss, last AP and AP50, and best AP; `-` means unknown.

    Flags beyond SETTING_COLUMNS get a column if their values differ between the logs. Logs that differ only in their
    seed are listed together, followed by a row of their means.
    """
    flags = SETTING_COLUMNS | {name: name for name in _varying_flags(logs)}
    header = ("model", *map(markdown_cell, flags), "final loss", "AP", "AP50", "best AP", "epoch")
    names = run_names(logs)
    rows = []
    for group in _by_setting(logs):
        rows += [_row(names[row], logs[row], list(flags.values())) for row in group]
        if of_seeds := _of_seeds([logs[row] for row in group]):
            rows.append(_mean_row(of_seeds, list(flags.values())))
    return markdown_table(header, rows)


def _by_setting(logs: Sequence[RunLog]) -> list[list[int]]:
    """Returns groups of indices into `logs`; the logs of a group differ only in seed and output folder name."""
    groups: dict[object, list[int]] = {}
    for row, log in enumerate(logs):
        kind = "train" if log.has_losses else parse_name(log.path.name).kind
        setting = frozenset((name, str(value)) for name, value in log.settings.items() if name not in OF_A_SEED)
        groups.setdefault((_folder_of_runs(log), kind, setting), []).append(row)
    return list(groups.values())


def _folder_of_runs(log: RunLog) -> Path:
    """Returns the parent of the run's output folder or, if that folder isn't known, the folder of the log."""
    return (output_folder(log) or log.path).parent


def _of_seeds(group: Sequence[RunLog]) -> list[RunLog]:
    """Returns one log per seed of a setting: if a seed has several training logs, the one that goes furthest.

    Returns an empty list if there is only one seed, or if a seed has several logs that aren't training logs.
    """
    by_seed: dict[str, list[RunLog]] = {}
    for log in group:
        by_seed.setdefault(str(log.settings.get("seed")), []).append(log)
    if len(by_seed) == 1 or any(len(of_seed) > 1 and not of_seed[0].has_losses for of_seed in by_seed.values()):
        return []
    return [max(of_seed, key=lambda log: [point[:2] for point in log.points[-1:]]) for of_seed in by_seed.values()]


def _mean_row(logs: Sequence[RunLog], flags: Sequence[str]) -> tuple[str, ...]:
    """Returns the table row of the means over the seeds, with their standard deviations."""
    settings = logs[0].settings | {"seed": [log.settings.get("seed") for log in logs]}
    columns = zip(*map(_results, logs), strict=True)
    results = [_mean(text, values) for text, values in zip(TEXTS, columns, strict=True)]
    folder = _folder_of_runs(logs[0]).name
    name = _markdown_text(f"{folder}: mean of {len(logs)} seeds" if folder else f"mean of {len(logs)} seeds")
    return (name, *(_cell(settings.get(flag)) for flag in flags), *results, UNKNOWN)


def _mean(text: Callable[[float], str], values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None and isfinite(value)]
    if len(known) < len(values):
        return UNKNOWN
    return f"{text(statistics.mean(known))} ± {text(statistics.stdev(known))}"


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


def _row(name: str, log: RunLog, flags: Sequence[str]) -> tuple[str, ...]:
    results = [UNKNOWN if value is None else text(value) for text, value in zip(TEXTS, _results(log), strict=True)]
    settings = (_cell(log.settings.get(flag)) for flag in flags)
    aps = _aps(log)
    best_epoch = str(max(aps, key=lambda epoch: aps[epoch])) if aps else UNKNOWN
    return (_markdown_text(name), *settings, *results, best_epoch)


def _results(log: RunLog) -> tuple[float | None, ...]:
    """Returns the final loss, the last evaluation's AP and AP50, and the best AP."""
    last = list(log.tables.values())[-1:]
    numbers = [table[row] if table[row] >= 0 else None for table in last for row in (AP, AP50)] or [None, None]
    return (final_loss(log), *numbers, max(_aps(log).values(), default=None))


def _aps(log: RunLog) -> dict[int, float]:
    """Returns AP by epoch, for the evaluations whose epoch and AP are known."""
    return {epoch: numbers[AP] for epoch, numbers in log.tables.items() if epoch is not None and numbers[AP] >= 0}


def _loss_text(loss: float) -> str:
    return f"{loss:.5f}" if abs(loss) < 1e6 else f"{loss:g}"


def _ap_text(ap: float) -> str:
    return f"{ap:.3f}"


TEXTS = (_loss_text, _ap_text, _ap_text, _ap_text)  # of _results


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
    say(f"Over {counted(len(numbers), 'seed')}, with the standard deviation of one run:")
    header = markdown_head("number", "mean", "deviation", *(f"seed {seed}" for seed in numbers), rule="---:")
    say(*header.splitlines())
    for name in names:
        values = [of_seed[name] for of_seed in numbers.values()]
        known = [value for value in values if not isnan(value)]
        mean = statistics.mean(known) if known else nan
        deviation = statistics.stdev(known) if len(known) > 1 else nan
        cells = ("-" if isnan(value) else f"{value:.4f}" for value in (mean, deviation, *values))
        say(markdown_row(markdown_cell(name), *cells))

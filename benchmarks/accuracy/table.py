"""Makes the tables of accuracy.md from the records of the runs."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy.rows import BASELINE, PEER, Setting
from retinanet.evaluation.intervals import Interval, interval
from retinanet.reports.tables import markdown_head, markdown_row

DONE = "done"
CANDIDATE = "candidate_"  # the prefix of the names of abandoned rows
MOST_ROWS = 15  # in the summary
SUMMARY, SUMMARY_END = "<!-- summary: begin -->", "<!-- summary: end -->"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


class Record(NamedTuple):
    """The results of a run, stored as a line of JSON."""

    setting: Setting
    row: str
    flags: str
    seed: int
    numbers: dict[str, float] | None  # AP, AP50 and each class's AP; None for a run that diverged
    drawn_ap: list[int]  # AP on each draw of the val set's images, in ten-thousandths
    outcome: str  # DONE, or why it diverged
    commands: list[str]
    date: str
    commit: str
    machine: str
    versions: str


Group = dict[int, Record]  # the runs of one row, by their seeds
Key = tuple[str, str]  # a row's name and flags, since its flags may have changed


def read_records(path: Path) -> list[Record]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [record_of(json.loads(line)) for line in lines]


def record_of(entry: dict[str, Any]) -> Record:
    setting = entry["setting"]
    return Record(**{**entry, "setting": Setting(**{**setting, "milestones": tuple(setting["milestones"])})})


def line_of(record: Record) -> str:
    return json.dumps({**record._asdict(), "setting": record.setting._asdict()}, separators=(",", ":"))


def with_tables(text: str, records: Sequence[Record]) -> str:
    """Returns the page with new tables, a new summary, or both, depending on the markers in it."""
    if BEGIN in text:
        text = _between(text, BEGIN, END, tables_text(records))
    return _between(text, SUMMARY, SUMMARY_END, summary_text(records)) if SUMMARY in text else text


def _between(text: str, begin: str, end: str, content: str) -> str:
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def _by_setting(records: Sequence[Record]) -> list[list[Record]]:
    """Groups the records by setting: GPU settings first, and for each device the longest runs first."""
    settings = sorted(
        {record.setting: None for record in records}, key=lambda setting: (setting.device == "cpu", -setting.epochs)
    )
    return [[record for record in records if record.setting == setting] for setting in settings]


def tables_text(records: Sequence[Record]) -> str:
    """Returns a table for each setting."""
    return "\n\n".join(map(_table, _by_setting(records))) or "No run has been made yet."


def summary_text(records: Sequence[Record]) -> str:
    """Returns the first setting's summary: at most MOST_ROWS rows, highest AP first, without abandoned candidates."""
    if not records:
        return "No run has been made yet."
    records = _by_setting(records)[0]
    groups = {key: group for key, group in _groups(records).items() if not key[0].startswith(CANDIDATE)}
    baseline = groups.get((BASELINE, ""), {})
    mean_ap = {
        key: statistics.mean([one.numbers["AP"] for one in group.values() if one.numbers] or [0.0])
        for key, group in groups.items()
    }
    lines = [f"{records[0].setting.title()}:", ""]
    lines.append(markdown_head("row", "what changes", "seeds", "AP", "AP50", "AP minus the baseline's"))
    for key in sorted(groups, key=lambda key: -mean_ap[key])[:MOST_ROWS]:
        lines.append(_line(key, groups[key], ["AP", "AP50"], baseline))
    return "\n".join([*lines, "", *_beside_peer(groups)]).rstrip()


def _groups(records: Sequence[Record]) -> dict[Key, Group]:
    groups: dict[Key, Group] = {}
    for record in records:
        groups.setdefault((record.row, record.flags), {})[record.seed] = record
    return groups


def _table(records: Sequence[Record]) -> str:
    groups = _groups(records)
    setting, baseline = records[0].setting, groups.get((BASELINE, ""), {})
    known = next((record.numbers for record in records if record.numbers), {"AP": 0, "AP50": 0})
    names = list(known)
    head = ["row", "flags", "seeds", *(name.removeprefix("AP of ") for name in names), "AP minus the baseline's"]
    lines = [f"### {setting.title()}", ""]
    if setting.device == "cpu":
        lines += ["**Provisional**: too short and too small to tell how good a recipe is in the end.", ""]
    lines += [markdown_head(*head)]
    lines += [_line(key, group, names, baseline) for key, group in groups.items()]
    lines += ["", *_beside_peer(groups)]
    measured = {f"{one.machine}, {one.versions}, commit {_short(one.commit)}, {one.date}": None for one in records}
    lines += [*(f"Measured on {one}." for one in measured), "", "```console"]
    for group in groups.values():
        first = group[min(group)]
        lines += [f"# {first.row}{f', seed {first.seed} of {_list(group)}' if len(group) > 1 else ''}"]
        lines += [f"$ {command}" for command in first.commands]
    return "\n".join([*lines, "```"])


def _line(key: Key, group: Group, names: list[str], baseline: Group) -> str:
    found = [one.numbers for one in group.values() if one.numbers]
    failed = [
        f"seed {seed} diverged: {one.outcome.replace('|', '/')}" for seed, one in group.items() if one.numbers is None
    ]
    cells = [_mean([numbers[name] for numbers in found]) for name in names]
    difference = "" if key[0] == BASELINE else signed(difference_of(baseline, group))
    row = key[0] + (f" ({'; '.join(failed)})" if failed else "")
    flags = f"`{key[1]}`" if key[1] else ""
    return markdown_row(row, flags, _list(group), *cells, difference)


def _short(commit: str) -> str:
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def _list(group: Group) -> str:
    return ", ".join(map(str, sorted(group)))


def _mean(values: list[float]) -> str:
    """Returns the mean and, if there are several values, their standard deviation."""
    if not values or np.isnan(values).any():
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _beside_peer(groups: dict[Key, Group]) -> list[str]:
    """Compares the baseline, strong and recommended rows to the peer, using each row's latest flags."""
    peer = groups.get((PEER, ""), {})
    last = {name: group for (name, _), group in groups.items() if name in (BASELINE, "strong", "recommended")}
    pairs = [(name, difference_of(peer, group)) for name, group in last.items()]
    lines = [f"AP of {name} minus {PEER}'s: {signed(less)}." for name, less in pairs if not np.isnan(less.value)]
    return ["  \n".join(lines), ""] if lines else []


def difference_of(a: Group, b: Group) -> Interval:
    """Returns the mean AP of `b` minus that of `a` over their common seeds, with its interval; NaN if there are none.

    The interval comes from bootstrap samples of the val set's images, the same samples for all runs. So it accounts for
    the choice of images, but not for the choice of seeds.
    """
    seeds = [seed for seed in a if seed in b and a[seed].numbers and b[seed].numbers]
    if not seeds:
        return Interval(float("nan"), float("nan"), float("nan"))
    drawn = np.mean([np.subtract(b[seed].drawn_ap, a[seed].drawn_ap) for seed in seeds], axis=0) / 10_000
    value = statistics.mean(_ap(b[seed]) - _ap(a[seed]) for seed in seeds)
    return interval(value, drawn)


def _ap(record: Record) -> float:
    assert record.numbers is not None
    return record.numbers["AP"]


def signed(difference: Interval) -> str:
    if np.isnan(difference.value):
        return "-"
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"

"""Lists the settings in which the runs behind two result files differ."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retinanet.coco.results import SETTINGS_KEYS
from retinanet.reports.tables import aligned
from retinanet.runtime.printable import printable
from retinanet.settings.evaluate import FOR_DETECTION
from retinanet.settings.train import UNLISTED, earlier_settings

MADE_FROM = ("checkpoint", "epoch", "git_commit")
NOT_COMPARED = UNLISTED | {"output_path"}  # the checkpoint's path says more
# Flags of test.py that affect the detections.
COMPARED_IN_TEST = {*FOR_DETECTION, "precision", "exif"} - {
    *("results_path", "checkpoint_path", "log_dir", "depth", "batch_size", "workers")
}
MOST_LETTERS = 48  # of a value in the table; enough for a git commit


class SettingDifference(NamedTuple):
    name: str
    a: Any
    b: Any


def setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingDifference]:
    """Returns the differences between the records of two result files.

    If a run was made by an earlier version that lacked a flag, earlier_settings supplies the value that the earlier
    version used implicitly.
    """
    plain = [record[SETTINGS_KEYS[0]] for record in (a, b)]
    trained = [earlier_settings(str(values.get("weights"))) | values for values in plain]
    tested = [record[SETTINGS_KEYS[1]] for record in (a, b)]
    groups: list[tuple[str, Sequence[Mapping[str, Any]], set[str]]] = [
        ("", (a, b), set(MADE_FROM)),
        ("--", trained, (trained[0].keys() | trained[1].keys()) - NOT_COMPARED),
        ("test.py --", tested, COMPARED_IN_TEST),
    ]
    return [
        SettingDifference(prefix + name, *(values.get(name) for values in both))
        for prefix, both, names in groups
        for name in sorted(names)
        if both[0].get(name) != both[1].get(name)
    ]


def setting_lines(differences: Sequence[SettingDifference] | None, why_unknown: Sequence[str]) -> list[str]:
    """Returns lines that list the `differences` or, if they are None, the reasons in `why_unknown`."""
    if differences is None:
        return [f"Settings that differ: unknown, as {'; '.join(why_unknown)}"]
    if not differences:
        return ["Settings that differ: none"]
    rows = [[printable(each.name)[:MOST_LETTERS], _text(each.a), _text(each.b)] for each in differences]
    return aligned([["Settings that differ", "A", "B"], *rows])


def _text(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    text = printable(text)
    return text if len(text) <= MOST_LETTERS else f"...{text[3 - MOST_LETTERS :]}"

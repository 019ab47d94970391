"""Reports how boxes must be read, as findings and as lines of text, and gives the command that rewrites the boxes."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.check_data.box_groups import Group, SetVerdict
from retinanet.data.box_fit import BoxScores
from retinanet.data.box_verdict import NO_READING, OTHERWISE, UNTOLD, Verdict, words_of
from retinanet.settings.convert import AS_GIVEN

KINDS = {OTHERWISE: "boxes_read_otherwise", NO_READING: "boxes_fit_no_reading", UNTOLD: "boxes_untold"}


class JudgedSet(NamedTuple):
    checked: CheckedSet
    scores: BoxScores
    verdict: SetVerdict

    def parts(self) -> list[tuple[Group | None, Verdict, np.ndarray]]:
        """Returns (group, verdict, mask), first for the boxes in no group, where group is None, then for each group.

        The masks are bool [n], with one value per scored box.
        """
        groups = [(group, verdict, group.mask) for group, verdict in self.verdict.groups]
        return [(None, self.verdict.whole, self.verdict.rest), *groups]


class Misfit(NamedTuple):
    """The boxes of a set or of a group in it, with a verdict whose kind is in KINDS."""

    set_name: str
    kind: str  # of the verdict
    share: float  # of the set's scored boxes
    text: str  # names the boxes, gives their verdict and, if a reading fits, says how to correct them


def misfits_of(judged: Sequence[JudgedSet], coco_path: Path) -> list[Misfit]:
    return [
        Misfit(
            each.checked.name,
            verdict.kind,
            float(mask.mean()),
            f"{name_of(group, each)}: {words_of(verdict)}{_remedy(group, verdict, each, judged, coco_path)}",
        )
        for each in judged
        for group, verdict, mask in each.parts()
        if verdict.kind in KINDS
    ]


def verdict_lines(judged: Sequence[JudgedSet], picture: Path | None) -> list[str]:
    """Returns a line for each set, and for each of its groups that differs from the rest."""
    if not judged:
        return []
    lines = ["Do the boxes fit their objects? What the edges in the pictures say:"]
    for each in judged:
        for group, verdict, _ in each.parts():
            lines.append(f"  {each.checked.name}, {name_of(group, each)}: {words_of(verdict)}")
    if picture:
        is_read = any(verdict.kind == OTHERWISE for each in judged for _, verdict, _ in each.parts())
        both = "dashed lines show them as given, coloured lines show them in the reading that fits"
        how = both if is_read else "coloured, as given"
        lines.append(f"These boxes are drawn in {picture}: {how}")
    return lines


def name_of(group: Group | None, judged: JudgedSet) -> str:
    if group:
        return f"{group.kind} {group.name}"
    return "the other boxes" if judged.verdict.groups else "all boxes"


def _remedy(
    group: Group | None, verdict: Verdict, judged: JudgedSet, every: Sequence[JudgedSet], coco_path: Path
) -> str:
    """Returns text that follows an OTHERWISE verdict and says how to correct the boxes; "" for other verdicts."""
    if verdict.kind != OTHERWISE:
        return ""
    if verdict.reading == AS_GIVEN:
        return ". Move them to a separate file before you rewrite the others"
    if judged.verdict.raw if group is None else group.exif_reading == verdict.reading:
        return ". Pass --exif raw to train.py, vis.py, check_data and convert"
    wholes = [each.verdict.whole for each in every]
    alike = all((whole.kind, whole.reading) == (verdict.kind, verdict.reading) for whole in wholes)
    alike = alike and not any(each.verdict.groups for each in every)
    source = str(coco_path) if alike else str(judged.checked.annotations.path)
    apart = ""
    if group or judged.verdict.groups:
        source, apart = "FILE", ". Move them to a separate file"
    words = ["python", "-m", "retinanet.convert", source, "--boxes", verdict.reading, "--output_path", "OUT"]
    return f"{apart}. Rewrite them: {shlex.join(words)}"

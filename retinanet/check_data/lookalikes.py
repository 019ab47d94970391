"""Finds images of a set that look like images of an earlier set, such as the training set, and draws the pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.check_data.findings import Findings
from retinanet.check_data.image_checks import Content
from retinanet.data.lookalikes import remember_lookalikes
from retinanet.data.similar import joined_looks, most_similar
from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.figures import save_figure

MOST_PAIRS, COLUMNS, PANEL_PIXELS = 12, 4, 360  # of the picture


class Lookalike(NamedTuple):
    """An image of a set, and the image in the earlier sets that it looks most like."""

    checked: CheckedSet
    row: int
    earlier: CheckedSet
    earlier_row: int
    likeness: float

    def text(self) -> str:
        image, other = self.checked.image_label(self.row), self.earlier.image_label(self.earlier_row)
        return f"{image} looks like {other} of {self.earlier.name}"


def note_lookalikes(sets: list[tuple[CheckedSet, list[Content]]], findings: Findings) -> list[Lookalike]:
    """Adds to `findings` the images that look like an image of an earlier set, and returns the pairs.

    Images with the same pixels are left out, because note_repeated reports them. They are included in the cache that
    test.py reads.
    """
    every: list[Lookalike] = []
    for number, (checked, contents) in enumerate(sets):
        pairs: dict[int, Lookalike] = {}
        for earlier, others in sets[:number]:
            found = _most_alike(checked, contents, earlier, others)
            is_alike = np.isin(np.arange(len(checked.dataset)), [pair.row for pair in found])
            remember_lookalikes(checked.dataset, earlier.dataset, is_alike)
            for pair in found:
                pairs[pair.row] = max(pairs.get(pair.row, pair), pair, key=lambda either: either.likeness)
        repeated = {content.digest for _, others in sets[:number] for content in others}
        new = [pair for row, pair in sorted(pairs.items()) if contents[row].digest not in repeated]
        findings.add(checked.name, "image_like_in_two_sets", [pair.text() for pair in new])
        every += new
    return every


def _most_alike(
    checked: CheckedSet, contents: list[Content], earlier: CheckedSet, others: list[Content]
) -> list[Lookalike]:
    """Returns the images of `checked` that look like an image of `earlier`, each paired with the most similar one."""
    looks, other_looks = (
        {row: each.look for row, each in enumerate(every) if each.look is not None} for every in (contents, others)
    )
    if not looks or not other_looks:
        return []
    rows, other_rows = list(looks), list(other_looks)
    best, likeness = most_similar(joined_looks(list(looks.values())), joined_looks(list(other_looks.values())))
    return [
        Lookalike(checked, rows[place], earlier, other_rows[best[place]], float(likeness[place]))
        for place in np.flatnonzero(best >= 0).tolist()
    ]


def draw_lookalikes(pairs: Sequence[Lookalike], path: Path) -> bool:
    """Draws a selection of the pairs, spread evenly from the most alike to the least.

    Without pairs, returns False and writes no file.
    """
    if not pairs:
        return False
    ordered = sorted(pairs, key=lambda pair: -pair.likeness)
    places = np.linspace(0, len(ordered) - 1, min(MOST_PAIRS, len(ordered))).astype(int).tolist()
    panels = []
    for pair in (ordered[place] for place in places):
        for checked, row in ((pair.checked, pair.row), (pair.earlier, pair.earlier_row)):
            title = f"{checked.name}: {checked.annotations.file_name(row)}"
            none = np.zeros((0, 4)), np.zeros(0, np.int64)
            panels.append(Panel(title, checked.dataset.original(row), *none, None))
    save_figure(draw_grid(panels, (), COLUMNS, size=PANEL_PIXELS), path)
    return True

"""Groups boxes by orientation, folder, image size, class and source, and finds the groups that differ from the rest."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from retinanet.check_data.annotation_checks import CheckedSet
from retinanet.coco.annotations import Annotations
from retinanet.data.box_fit import BoxScores
from retinanet.data.box_readings import orientation_reading
from retinanet.data.box_verdict import FEWEST_OBJECTS, NO_READING, OTHERWISE, Verdict, judge
from retinanet.data.headers import are_untold
from retinanet.runtime.printable import printable
from retinanet.settings.convert import AS_GIVEN
from retinanet.settings.shared import UPRIGHT

MOST_GROUPS = 10  # the maximum number of groups that are named for a set
NEARLY_ALL = 0.95  # a group with more than this fraction of the objects counts as the whole set
BY_CLASS = "class"


class Group(NamedTuple):
    kind: str
    name: str
    mask: np.ndarray  # bool [n], of the scored boxes
    exif_reading: str = ""  # the reading that --exif raw gives these boxes, if it changes them


class SetVerdict(NamedTuple):
    """Says how the boxes of a set must be read, and which groups of boxes differ from the rest."""

    whole: Verdict  # on the boxes in none of `groups`
    rest: np.ndarray  # bool [n], marks these boxes among the scored boxes
    groups: list[tuple[Group, Verdict]]  # the groups that differ from the rest
    raw: bool = False  # True if --exif raw reads nearly all boxes in `rest` as `whole` says


def judge_set(scores: BoxScores, groups: Sequence[Group]) -> SetVerdict:
    """Judges the boxes of a set: singles out the group that stands out most, judges the rest without it, and so on."""
    rest = np.ones(len(scores.rows), bool)
    smaller = [group for group in groups if FEWEST_OBJECTS <= group.mask.sum() <= NEARLY_ALL * len(rest)]
    whole = judge(scores)
    expected = whole.reading if whole.kind == OTHERWISE else AS_GIVEN
    named: list[tuple[Group, Verdict]] = []
    while len(named) < MOST_GROUPS and whole.kind != NO_READING:
        verdicts = [
            (group, judge(scores, group.mask & rest, expected=expected, num_groups=len(smaller))) for group in smaller
        ]
        others = [
            (group, verdict)
            for group, verdict in verdicts
            # The objects of a class may lack clear edges even if their boxes are right.
            if verdict.kind == OTHERWISE or (verdict.kind == NO_READING and group.kind != BY_CLASS)
        ]
        if not others:
            break
        group, verdict = max(others, key=lambda pair: (pair[1].kind == OTHERWISE, pair[1].z))
        named.append((group, verdict))
        rest &= ~group.mask
    if named:
        whole = judge(scores, rest)
    raw = any(
        group.exif_reading == whole.reading and (group.mask & rest).sum() > NEARLY_ALL * rest.sum() for group in groups
    )
    return SetVerdict(whole, rest, named, raw and whole.kind == OTHERWISE)


def groups_of(checked: CheckedSet, scores: BoxScores) -> list[Group]:
    """Returns the groups of boxes to judge; if several have the same boxes, judge_set reports only the first."""
    groups = [*_by_orientation(checked, scores.images), *groups_of_annotations(checked.dataset.annotations, scores)]
    if checked.sources:
        groups += _partition("source", np.array(checked.sources)[checked.places[scores.rows]])
    return groups


def groups_of_annotations(annotations: Annotations, scores: BoxScores) -> list[Group]:
    """Returns the groups of boxes by folder, image size and class."""
    images = scores.images
    names = [PurePosixPath(annotations.file_name(image)) for image in range(len(annotations.sizes))]
    sizes = [f"{width} x {height}" for height, width in annotations.sizes[images].tolist()]
    class_names = np.array([printable(name) for name in annotations.class_names])
    return [
        *_partition("folder", np.array([printable(str(name.parent)) for name in names])[images]),
        *_partition("size", np.array(sizes)),
        *_partition(BY_CLASS, class_names[annotations.labels[scores.rows]]),
    ]


def _by_orientation(checked: CheckedSet, images: np.ndarray) -> Iterable[Group]:
    headers = checked.dataset.headers
    assert headers
    orientations = headers.orientations[images]
    is_untold = are_untold(checked.annotations, headers)[images] & (checked.dataset.exif == UPRIGHT)
    for orientation in np.unique(orientations).tolist():
        if orientation != 1:
            for untold, reading in ((True, orientation_reading(orientation)), (False, "")):
                mask = (orientations == orientation) & (is_untold == untold)
                yield Group("EXIF orientation", str(orientation), mask, reading)
    yield Group("EXIF orientation", "1 or none", orientations == 1)


def _partition(kind: str, names: np.ndarray) -> Iterable[Group]:
    """Yields a group for each name with FEWEST_OBJECTS boxes or more, largest first; none if all names are equal."""
    values, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    for code in np.argsort(-counts, kind="stable").tolist() if len(values) > 1 else ():
        if counts[code] >= FEWEST_OBJECTS:
            yield Group(kind, str(values[code]), codes == code)

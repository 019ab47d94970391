"""Splits images at random, so that each set gets its fraction of every class and groups of images stay together."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinanet.coco.folder import SETS
from retinanet.convert.sets import Labelled, LabelledImage, LabelledSet, with_distinct_names
from retinanet.runtime.errors import UserError


def split(labelled: Labelled, shares: Sequence[float], seed: int, group_by: str | None) -> Labelled:
    """Divides all images into train, val and, if there are three `shares`, test; `shares` are fractions of the images.

    This is iterative stratification (https://doi.org/10.1007/978-3-642-23808-6_10): groups with the rarest class come
    first, and each group goes to the set that lacks the most objects of that class. `group_by` is a regular expression
    that must match every file name; images with the same match, or the same first capture group, form a group. Raises
    UserError if a set would stay empty.
    """
    names = [image.name for labelled_set in labelled.sets for image in labelled_set.images]
    labelled, notes = with_distinct_names(labelled)
    images = [image for labelled_set in labelled.sets for image in labelled_set.images]
    groups = list(_groups(images, names, group_by).values())
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[number] for number in order]
    counts = [Counter(box.label for image in group for box in image.boxes) for group in groups]
    needs = _Needs(counts, [len(group) for group in groups], shares)
    parts: list[list[LabelledImage]] = [[] for _ in shares]
    for row in _rarest_first(counts):
        place = needs.neediest(counts[row])
        needs.give(place, counts[row], len(groups[row]))
        parts[place] += groups[row]
    for name, part in zip(SETS, parts, strict=False):
        if not part:
            raise UserError(
                f"--split: {len(images)} images in {len(groups)} groups are too few for a set {name}. Raise its "
                "fraction, or split into fewer sets."
            )
    sorted_parts = [sorted(part, key=lambda image: image.name) for part in parts]
    content = _merged([labelled_set.content for labelled_set in labelled.sets])
    sets = [LabelledSet(name, part, content) for name, part in zip(SETS, sorted_parts, strict=False)]
    return labelled._replace(sets=sets, notes=[*labelled.notes, *notes])


def _merged(contents: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Returns what the first COCO file holds besides its images and annotations, with the licences of all files."""
    if contents[0] is None:
        return None
    lists = [content["licenses"] for content in contents if content and isinstance(content.get("licenses"), list)]
    licences: list[Any] = []
    for licence in (licence for each in lists for licence in each):
        licences += [licence] if licence not in licences else []
    return contents[0] | ({"licenses": licences} if lists else {})


class _Needs:
    """Tracks how many images, and how many objects of each class, each set still needs."""

    def __init__(self, counts: list[Counter[int]], sizes: list[int], shares: Sequence[float]) -> None:
        totals = sum(counts, Counter[int]())
        self.objects = [{label: share * count for label, count in totals.items()} for share in shares]
        self.images = [share * sum(sizes) for share in shares]
        self.totals = totals

    def neediest(self, counts: Counter[int]) -> int:
        """Returns the index of the set that needs the most objects of the rarest class in `counts`, or else images."""
        rarest = min(counts, key=lambda label: (self.totals[label], label), default=None)
        need = [
            (0.0 if rarest is None else objects[rarest], images)
            for objects, images in zip(self.objects, self.images, strict=True)
        ]
        return max(range(len(need)), key=lambda place: need[place])

    def give(self, place: int, counts: Counter[int], num_images: int) -> None:
        self.images[place] -= num_images
        for label, count in counts.items():
            self.objects[place][label] -= count


def _rarest_first(counts: list[Counter[int]]) -> list[int]:
    """Returns the indices of groups sorted by the frequency of their rarest class; groups without objects come last."""
    totals = sum(counts, Counter[int]())
    return sorted(range(len(counts)), key=lambda row: min((totals[label] for label in counts[row]), default=np.inf))


def _groups(
    images: Sequence[LabelledImage], names: Sequence[str], group_by: str | None
) -> dict[str, list[LabelledImage]]:
    """Groups the images by the match in their `names`, which are the file names in the source."""
    try:
        pattern = re.compile(group_by or "")
    except re.error as fault:
        raise UserError(f"--group_by {group_by}: is not a regular expression ({fault}). Correct it.") from None
    groups: dict[str, list[LabelledImage]] = {}
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        key = f"\0{number}"  # a group of one image
        if group_by is not None:
            match = pattern.search(name)
            if match is None:
                raise UserError(f"--group_by {group_by}: does not match {name}. It must match every file name.")
            key = (match[1] if pattern.groups else match[0]) or ""
        groups.setdefault(key, []).append(image)
    return groups

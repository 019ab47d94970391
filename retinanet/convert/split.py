"""A random split that gives each set its share of every class, and keeps groups of images together."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from retinanet.coco.folder import SETS
from retinanet.convert.sets import Labelled, LabelledImage, LabelledSet
from retinanet.runtime.errors import UserError


def split(labelled: Labelled, shares: Sequence[float], seed: int, group_by: str | None) -> Labelled:
    """All images in sets of these shares: train and val, and test where there are three.

    Iterative stratification (https://doi.org/10.1007/978-3-642-23808-6_10): the groups with the rarest class first,
    each to the set that lacks most of that class. `group_by`: a regular expression; images whose file names it matches
    with the same text, or the same first group in it, are a group. UserError where a set would stay empty.
    """
    images = [image for one in labelled.sets for image in one.images]
    groups = list(_groups(images, group_by).values())
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[number] for number in order]
    counts = [Counter(box.label for image in group for box in image.boxes) for group in groups]
    wanted = _Wanted(counts, [len(group) for group in groups], shares)
    parts: list[list[LabelledImage]] = [[] for _ in shares]
    for row in _rarest_first(counts):
        place = wanted.neediest(counts[row])
        wanted.give(place, counts[row], len(groups[row]))
        parts[place] += groups[row]
    for name, part in zip(SETS, parts, strict=False):
        if not part:
            raise UserError(
                f"--split: {len(images)} images in {len(groups)} groups are too few for a set {name}. Give it a larger "
                "share, or fewer sets"
            )
    sorted_parts = [sorted(part, key=lambda image: image.name) for part in parts]
    sets = [LabelledSet(name, part) for name, part in zip(SETS, sorted_parts, strict=False)]
    return labelled._replace(sets=sets, notes=[])


class _Wanted:
    """How many images, and objects of each class, each set still wants."""

    def __init__(self, counts: list[Counter[int]], sizes: list[int], shares: Sequence[float]) -> None:
        totals = sum(counts, Counter[int]())
        self.objects = [{label: share * count for label, count in totals.items()} for share in shares]
        self.images = [share * sum(sizes) for share in shares]
        self.totals = totals

    def neediest(self, counts: Counter[int]) -> int:
        """The set that lacks most of the rarest class in a group with these `counts`; without one, most images."""
        rarest = min(counts, key=lambda label: (self.totals[label], label), default=None)
        need = [
            (0.0 if rarest is None else own[rarest], images)
            for own, images in zip(self.objects, self.images, strict=True)
        ]
        return max(range(len(need)), key=lambda place: need[place])

    def give(self, place: int, counts: Counter[int], num_images: int) -> None:
        self.images[place] -= num_images
        for label, count in counts.items():
            self.objects[place][label] -= count


def _rarest_first(counts: list[Counter[int]]) -> list[int]:
    """The rows of `counts` by their rarest class; those without a class last."""
    totals = sum(counts, Counter[int]())
    return sorted(range(len(counts)), key=lambda row: min((totals[label] for label in counts[row]), default=np.inf))


def _groups(images: Sequence[LabelledImage], group_by: str | None) -> dict[str, list[LabelledImage]]:
    try:
        pattern = re.compile(group_by or "")
    except re.error as fault:
        raise UserError(f"--group_by {group_by}: is no regular expression ({fault})") from None
    groups: dict[str, list[LabelledImage]] = {}
    for number, image in enumerate(images):
        key = f"\0{number}"  # alone
        if group_by is not None:
            found = pattern.search(image.name)
            if found is None:
                raise UserError(f"--group_by {group_by}: does not match {image.name}")
            key = (found[1] if pattern.groups else found[0]) or ""
        groups.setdefault(key, []).append(image)
    return groups

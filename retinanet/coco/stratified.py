"""Groups images by name, and distributes whole groups at random, so that each part gets its share of every class."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from retinanet.runtime.errors import UserError

MOST_DRIFT = 0.05  # by this fraction of the smallest part, a part may exceed its share of the images of rare classes


def group_keys(names: Sequence[str], group_by: str | None) -> list[str]:
    r"""Returns the group of each file name in `names`; without `group_by`, each file forms a separate group.

    `group_by` is a regular expression that must match every file name; images with the same match, or the same first
    capture group, form a group. Raises UserError if the expression is invalid or doesn't match every name.
    """
    if group_by is None:
        return [f"\0{number}" for number in range(len(names))]
    try:
        pattern = re.compile(group_by)
    except re.error as fault:
        raise UserError(f"--group_by {group_by}: is not a regular expression ({fault}). Correct it.") from None
    keys = []
    for name in names:
        match = pattern.search(name)
        if match is None:
            raise UserError(f"--group_by {group_by}: does not match {name}. It must match every file name.")
        keys.append((match[1] if pattern.groups else match[0]) or "")
    return keys


def stratified(
    counts: Sequence[Counter[int]], sizes: Sequence[int], shares: Sequence[float], seed: int
) -> list[list[int]]:
    """Distributes groups over parts with the given `shares` of the images. Returns the indices of each part's groups.

    `counts` are each group's numbers of objects by class, and `sizes` are the groups' numbers of images. This is
    iterative stratification (https://doi.org/10.1007/978-3-642-23808-6_10): groups with the rarest classes come first,
    and each group goes to the part that lacks the most objects of the group's rarest class. If a class has so few
    objects that the smallest part's share is less than one, they can't be divided in proportion to the shares, and with
    many such classes, the errors would add up. So a part that already has its share of the images with such classes
    gets no more of them.
    """
    order = np.random.default_rng(seed).permutation(len(counts)).tolist()
    needs = _Needs(counts, sizes, shares)
    parts: list[list[int]] = [[] for _ in shares]
    for group in _rarest_first(order, counts):
        part = needs.neediest(counts[group])
        needs.give(part, counts[group], sizes[group])
        parts[part].append(group)
    return parts


class _Needs:
    """Tracks how many images, and how many objects of each class, each part still needs."""

    def __init__(self, counts: Sequence[Counter[int]], sizes: Sequence[int], shares: Sequence[float]) -> None:
        self.totals = sum(counts, Counter[int]())
        self.objects = [{label: share * count for label, count in self.totals.items()} for share in shares]
        self.images = [share * sum(sizes) for share in shares]
        self.rare = {label for label, count in self.totals.items() if count * min(shares) < 1}
        num_rare = sum(size for each, size in zip(counts, sizes, strict=True) if self._rarest(each) in self.rare)
        self.rare_images = [share * num_rare for share in shares]
        self.slack = MOST_DRIFT * min(self.images)

    def _rarest(self, counts: Counter[int]) -> int | None:
        return min(counts, key=lambda label: (self.totals[label], label), default=None)

    def neediest(self, counts: Counter[int]) -> int:
        """Returns the part lacking the most objects of the rarest class in `counts` or, on a tie, the most images."""
        rarest = self._rarest(counts)
        need = [
            (0.0 if rarest is None else objects[rarest], images)
            for objects, images in zip(self.objects, self.images, strict=True)
        ]
        parts = [part for part in range(len(need)) if rarest not in self.rare or self.rare_images[part] > -self.slack]
        return max(parts, key=lambda part: need[part])

    def give(self, part: int, counts: Counter[int], num_images: int) -> None:
        self.images[part] -= num_images
        self.rare_images[part] -= num_images * (self._rarest(counts) in self.rare)
        for label, count in counts.items():
            self.objects[part][label] -= count


def _rarest_first(order: Sequence[int], counts: Sequence[Counter[int]]) -> list[int]:
    """Sorts groups by the frequency of their rarest class; groups without objects come last, and ties keep `order`."""
    totals = sum(counts, Counter[int]())
    return sorted(order, key=lambda group: min((totals[label] for label in counts[group]), default=np.inf))

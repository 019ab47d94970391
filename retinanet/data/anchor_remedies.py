"""Finds settings that give more objects an anchor: larger images first, then other anchors, then another matcher."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from retinanet.data.anchor_coverage import AnchorSetup, Coverage, coverage, ious_of
from retinanet.data.dataset import CocoDataset
from retinanet.data.tiles import sizes_of_epoch
from retinanet.data.transforms import resized_sizes
from retinanet.detector.settings import AnchorShapes, LossSettings
from retinanet.runtime.printable import printable
from retinanet.settings.shared import LEAST_SIDE

MORE_RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)
CLEAR_GAIN = 0.05  # the fraction of all objects, or of a class, that a change must gain to be worth a line
# The fractions of the best settings' gain that suffice: for larger images, and for all other settings.
MOST_OF, NEARLY = 0.7, 0.9
MOSTLY, FEWEST = 0.5, 20  # a class with at least FEWEST objects counts by itself if more than MOSTLY of them are missed
# The tile sizes to try: fractions of the longest image side in the set, rounded to a multiple of TILE_MULTIPLE. A tile
# is enlarged by at most a factor of MOST_ENLARGED.
TILE_SHARES, TILE_MULTIPLE, MOST_ENLARGED = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09), 32, 2
LOW_QUALITY = "--matcher low_quality"
MISSED = 0.05  # a larger fraction of objects without an anchor is worth a line
MOST_MISSED_NAMED = 5  # the maximum number of classes above MISSED that a line names


class Remedy(NamedTuple):
    """Flags of train.py, and the coverage and cost that result from them."""

    flags: str
    coverage: Coverage
    pixels: float  # of the network's input, relative to the current settings


def alternatives(setup: AnchorSetup) -> dict[str, AnchorSetup]:
    """Returns the setups to try, with other image sizes or anchors, keyed by the flags that select them."""
    others = {flags: setup._replace(shapes=shapes) for flags, shapes in other_anchors(setup.shapes).items()}
    return smaller_sides(setup) | larger_sides(setup) | others


def smaller_sides(setup: AnchorSetup) -> dict[str, AnchorSetup]:
    return {flags: other for flags, other in _sides(setup, 0.5, 0.75).items() if other.min_side >= LEAST_SIDE}


def larger_sides(setup: AnchorSetup) -> dict[str, AnchorSetup]:
    return _sides(setup, 1.25, 1.5, 2)


def _sides(setup: AnchorSetup, *factors: float) -> dict[str, AnchorSetup]:
    """Returns copies of the setup with image sizes multiplied by each of `factors`, keyed by flags."""
    sides = [(round(setup.min_side * factor), round(setup.max_side * factor)) for factor in factors]
    return {
        f"--min_side {least} --max_side {most}": setup._replace(min_side=least, max_side=most) for least, most in sides
    }


def other_anchors(shapes: AnchorShapes) -> dict[str, AnchorShapes]:
    """Returns the anchors to try instead of `shapes`, keyed by the flags that select them."""
    ratios = f"--anchor_ratios {' '.join(f'{ratio:g}' for ratio in MORE_RATIOS)}"
    others = {f"--anchor_scale {side}": shapes._replace(side=side) for side in (2, 3, 6)}
    others[ratios] = shapes._replace(ratios=MORE_RATIOS)
    others |= {f"--anchor_scale {side} {ratios}": shapes._replace(side=side, ratios=MORE_RATIOS) for side in (2, 3)}
    return {flags: other for flags, other in others.items() if other != shapes}


def remedies(
    dataset: CocoDataset, setup: AnchorSetup, loss: LossSettings, now: Coverage, *, fixed_anchors: bool = False
) -> list[Remedy]:
    """Returns settings, best first, that give noticeably more objects an anchor than `setup`, whose coverage is `now`.

    Larger images come first, because, unlike smaller anchors, they also make objects easier to recognise. Of the
    image sizes, the smallest that achieves most of the best settings' gain is chosen; if none does, larger images are
    combined with other anchors, provided that this clearly helps. Other anchors at the current image size follow. If
    `loss` has the matcher "iou", the last remedy forces an anchor on each object, however little the two overlap.
    """
    if not len(now.matched) or (now.missed < CLEAR_GAIN and not mostly_missed(now)):
        return []  # no settings could gain much
    larger = larger_sides(setup)
    shapes = {} if fixed_anchors else other_anchors(setup.shapes)
    anchors = {flags: setup._replace(shapes=other) for flags, other in shapes.items()}
    both = {
        f"{sides} {flags}": other._replace(shapes=shapes[flags]) for sides, other in larger.items() for flags in shapes
    }
    setups = larger | both | anchors
    regained = {flags: _share_regained(now, dataset, other, loss) for flags, other in setups.items()}
    best, best_anchors = max(regained.values()), max((regained[flags] for flags in anchors), default=0.0)
    suffices = [flags for flags in larger if regained[flags] > MOST_OF * best]
    if not suffices and best - best_anchors > CLEAR_GAIN / now.missed:
        suffices = [flags for flags in both if regained[flags] > NEARLY * best]
    chosen = [*suffices[:1], *[flags for flags in anchors if regained[flags] > NEARLY * best_anchors][:1]]
    by_iou = replace(loss, matcher="iou") if loss.matcher == "low_quality" else loss
    measured = [remedy_of(flags, dataset, setup, setups[flags], by_iou, len(now.matched)) for flags in chosen]
    if loss.matcher == "iou":
        forced = replace(loss, matcher="low_quality")
        measured.append(remedy_of(LOW_QUALITY, dataset, setup, setup, forced, len(now.matched)))
    return [remedy for remedy in measured if is_clear(remedy.coverage, now)]


def remedy_of(
    flags: str, dataset: CocoDataset, setup: AnchorSetup, other: AnchorSetup, loss: LossSettings, most: int
) -> Remedy:
    """Measures `other`, as a replacement for `setup`, on about `most` objects."""
    pixels, pixels_now = (_pixels_of_epoch(dataset, each) for each in (other, setup))
    return Remedy(flags, coverage(dataset, other, loss, most), pixels / pixels_now)


def _pixels_of_epoch(dataset: CocoDataset, setup: AnchorSetup) -> float:
    """Returns how many pixels the network sees in an epoch."""
    sizes = sizes_of_epoch(dataset, setup.tiles, setup.min_visible)
    return float(resized_sizes(sizes, setup.min_side, setup.max_side).prod(axis=1, dtype=float).sum())


def tile_remedies(dataset: CocoDataset, setup: AnchorSetup, loss: LossSettings, most: int) -> list[Remedy]:
    """Returns the effects of using no tiles, then of several tile sizes, including that of `setup`, largest first."""
    assert setup.tiles
    whole = setup._replace(tiles=None)
    longest = int(dataset.annotations.sizes.max(initial=1))
    sides = {round(longest * share / TILE_MULTIPLE) * TILE_MULTIPLE for share in TILE_SHARES}
    sides = {side for side in sides if side >= max(LEAST_SIDE, setup.min_side / MOST_ENLARGED)} | {setup.tiles.side}
    setups = {"no tiles": whole} | {
        f"--tile {side}": setup._replace(tiles=setup.tiles._replace(side=side)) for side in sorted(sides, reverse=True)
    }
    return [remedy_of(flags, dataset, whole, other, loss, most) for flags, other in setups.items()]


def recommended(measured: Sequence[Remedy]) -> Remedy:
    """Returns the cheapest of the settings that leave about as few objects without an anchor as the best ones do."""
    least = min(each.coverage.missed for each in measured)
    return min((each for each in measured if each.coverage.missed < least + CLEAR_GAIN), key=lambda each: each.pixels)


def is_clear(other: Coverage, now: Coverage) -> bool:
    """Returns True if `other` misses noticeably fewer objects, overall or in a class that is mostly missed now."""
    missed = other.missed_by_class
    of_classes = [share - missed.get(label, share) for label, share in mostly_missed(now).items()]
    return max([now.missed - other.missed, *of_classes]) >= CLEAR_GAIN


def mostly_missed(now: Coverage) -> dict[int, float]:
    """Returns the fraction of objects without an anchor, for each class in which most objects have none.

    Classes with few objects are left out.
    """
    counts = np.bincount(now.objects.labels)
    return {label: share for label, share in now.missed_by_class.items() if share > MOSTLY and counts[label] >= FEWEST}


def _share_regained(now: Coverage, dataset: CocoDataset, setup: AnchorSetup, loss: LossSettings) -> float:
    """Returns the net gain of `setup` (objects regained minus objects lost) as a fraction of the missed objects."""
    sizes = dataset.annotations.sizes[now.objects.images]
    num_reached = (ious_of(setup, now.objects.corners, sizes) >= loss.foreground_iou).sum()
    return float((num_reached - now.matched.sum()) / (~now.matched).sum())


def missed_classes(now: Coverage, class_names: list[str]) -> str:
    """Returns, as text, the classes with the largest fractions of objects without an anchor, and these fractions."""
    by_class = now.missed_by_class
    worst = sorted((label for label in by_class if by_class[label] > MISSED), key=lambda label: -by_class[label])
    named = [f"{printable(class_names[label])} {by_class[label]:.0%}" for label in worst[:MOST_MISSED_NAMED]]
    return ", ".join([*named, "..."] if len(worst) > len(named) else named)


def remedy_lines(found: Sequence[Remedy]) -> list[str]:
    """Returns a line per remedy, with its cost and the fraction of objects that it still leaves without an anchor."""
    lines = []
    for flags, other, pixels in found:
        if pixels > 1:
            cost = f"; a step has {pixels:.2f} times the pixels and takes about {pixels:.2f} times the time and memory"
        elif flags == LOW_QUALITY:
            cost = " at no cost, but most of the anchors it adds barely overlap their objects and rarely find them"
        else:
            cost = " at about the same cost, but small objects stay small"
        drawn = "" if other.are_all else f" of {len(other.matched)} drawn"
        lines.append(f"  {flags} leaves {other.missed:.1%}{drawn} without an anchor{cost}")
    return lines

"""Decides from scores whether boxes fit as given, fit in another reading, fit in none, or can't be judged."""

from typing import NamedTuple

import numpy as np

from retinanet.data.box_fit import NAMES, BoxScores
from retinanet.data.box_readings import READINGS
from retinanet.runtime.printable import counted
from retinanet.settings.convert import AS_GIVEN

FEWEST_OBJECTS, FEWEST_IMAGES = 40, 20  # fewer aren't judged
SURE = 3.0  # the z above which a reading is named
RIGHT = 4.0  # the z above which boxes are said to fit; at 3, boxes of other images sometimes are, in sets of 60 images
DOUBTFUL = 1.0  # boxes are said to fit only if no other reading beats them by more than this z
# Boxes that belong to other images score no higher on the pictures that they are assigned to, except by chance. The
# best of many readings then has a z of up to this.
CHANCE = 2.0
FIT_IN_NONE = "fit in none of the readings, like labels of other images"
FEWEST_WITHOUT_READING = 100  # the fewest objects of which it is said that they fit in no reading
# In photographs and drawn scenes, boxes that fit score 0.15 to 0.4 higher on their own pictures than on others. Boxes
# are said not to fit only if the standard error is small enough to show such a difference, and if the pictures have
# edges at all (edges.straightness).
LARGEST_ERROR = 0.05
LEAST_STRAIGHTNESS = 0.4
FIT, OTHERWISE, NO_READING, UNTOLD, TOO_FEW = "fit", "otherwise", "no reading", "untold", "too few"


class Verdict(NamedTuple):
    """The reading, if any, in which a group of boxes fits the pictures."""

    kind: str  # FIT: as expected, OTHERWISE: as `reading`, NO_READING, UNTOLD or TOO_FEW
    reading: str
    z: float  # of the reading against the expected one; with FIT, against the same boxes on other pictures
    num_objects: int
    num_images: int
    order: str = ""  # with NO_READING, the pictures that the boxes fit, if any


def judge(
    scores: BoxScores, mask: np.ndarray | None = None, *, expected: str = AS_GIVEN, num_groups: int = 1
) -> Verdict:
    """Judges the boxes in `mask` [n], by default all, against the reading `expected`.

    If the boxes are one of `num_groups` groups, a larger z is needed to decide against `expected`, because one of the
    groups may reach SURE by chance.
    """
    if mask is not None:
        scores = scores._replace(
            rows=scores.rows[mask],
            images=scores.images[mask],
            own=scores.own[mask],
            others=scores.others[mask],
            orders=scores.orders[mask],
        )
    num_objects, num_images = len(scores.rows), len(np.unique(scores.images))

    def verdict(kind: str, z: float, reading: str = expected, order: str = "") -> Verdict:
        return Verdict(kind, reading, float(z), num_objects, num_images, order)

    def z(differences: np.ndarray) -> np.ndarray:
        """Returns z for each column; 0 if the column has too few values other than NaN."""
        return np.where((~np.isnan(differences)).sum(axis=0) < FEWEST_IMAGES, 0, z_of(differences, scores.images)[0])

    if num_objects < FEWEST_OBJECTS or num_images < FEWEST_IMAGES:
        return verdict(TOO_FEW, 0)
    place = NAMES.index(expected)
    before, usual = scores.own[:, [place]], scores.others[:, [place]]
    read, resized = np.split(scores.own, [len(NAMES)], axis=1)
    ahead = z(read - before)
    # A reading must also beat the given boxes at other sizes. Otherwise, the boxes may be read correctly, and only be
    # drawn too large or too small.
    ahead_of_sizes = [z(read - each[:, None]) for each in resized.T]
    beats_others, (error,) = z(scores.own - scores.others), z_of(before - usual, scores.images)[1]
    read_beats_others = beats_others[: len(NAMES)]
    orders_ahead = np.minimum(*(z(scores.orders - base) for base in (before, usual)))
    sure = np.sqrt(SURE**2 + 2 * np.log(num_groups))
    if (
        len(orders_ahead)
        and orders_ahead.max() > sure
        and orders_ahead.max() > np.minimum(ahead, read_beats_others).max()
    ):
        best = int(orders_ahead.argmax())
        return verdict(NO_READING, orders_ahead[best], order=scores.order_says[best])
    is_named = (np.min([ahead, *ahead_of_sizes], axis=0) > sure) & (read_beats_others > sure)
    if is_named.any():
        best = int(np.where(is_named, ahead, -np.inf).argmax())
        return verdict(OTHERWISE, ahead[best], NAMES[best])
    if beats_others[place] > RIGHT and max(ahead.max(), orders_ahead.max(initial=0)) <= DOUBTFUL:
        return verdict(FIT, beats_others[place])
    is_clear = error <= LARGEST_ERROR and scores.straightness >= LEAST_STRAIGHTNESS
    num_compared = int((~np.isnan(before - usual)).sum())
    if num_compared >= FEWEST_WITHOUT_READING and is_clear and beats_others.max() <= CHANCE:
        return verdict(NO_READING, beats_others[place])
    return verdict(UNTOLD, beats_others[place])


def words_of(verdict: Verdict) -> str:
    """Returns the verdict as text to put after the name of a group of boxes."""
    numbers = f"{counted(verdict.num_objects, 'object')} in {counted(verdict.num_images, 'image')}"
    if verdict.kind == TOO_FEW:
        return f"too few to tell: {numbers}"
    words = {
        FIT: "fit: none of the other readings fits better",
        OTHERWISE: f"fit as {verdict.reading.replace('_', ' ')} ({READINGS[verdict.reading].says})",
        NO_READING: f"fit as boxes {verdict.order}" if verdict.order else FIT_IN_NONE,
        UNTOLD: "can't tell",
    }
    return f"{words[verdict.kind]}; z {verdict.z:.1f}, {numbers}"


def z_of(differences: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of each column of `differences` [n, m] divided by its standard error, and the errors: [m], [m].

    NaN values are left out. `images` [n] must be ascending and not empty; the differences of an image count as one
    observation.
    """
    is_valid = ~np.isnan(differences)
    counts = is_valid.sum(axis=0)
    means = np.where(is_valid, differences, 0).sum(axis=0, dtype=float) / np.maximum(counts, 1)
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    sums = np.add.reduceat(np.where(is_valid, differences - means, 0), starts, axis=0)
    num_images = max(2, len(starts))
    errors = np.sqrt((sums**2).sum(axis=0) * num_images / (num_images - 1)) / np.maximum(counts, 1)
    return np.where(errors > 0, means / np.maximum(errors, 1e-12), 0.0), errors

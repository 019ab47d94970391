"""Measures how much of the 16-bit range a set's pictures use."""

from typing import NamedTuple

import numpy as np

from retinanet.data.dataset import CocoDataset
from retinanet.data.images import brightest
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.shared import WHITE_LEVEL

MOST_LOOKED_AT = 64  # the maximum number of pictures per set
USUAL_LEVELS = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, WHITE_LEVEL)  # of cameras with 8 to 16 bits


class Range(NamedTuple):
    """The range that the 16-bit pictures of a set use."""

    num_deep: int  # 16-bit pictures
    num_looked_at: int
    brightest: int  # the largest value in these
    white_level: int

    @property
    def is_far(self) -> bool:
        """Returns True if another white level fits better: at most half the range is used, or values lie outside it."""
        return not self.white_level / 2 < self.brightest <= self.white_level

    def text(self) -> str:
        level = next(level for level in USUAL_LEVELS if level >= self.brightest)
        advice = f"; --white_level {level} would fit" if self.is_far else ""
        return (
            f"{counted(self.num_deep, 'image')} with 16 bits per channel; the largest value, in {self.num_looked_at} "
            f"of them, is {self.brightest}, {self.brightest / self.white_level:.1%} of --white_level "
            f"{self.white_level}{advice}"
        )


def used_range(dataset: CocoDataset) -> Range | None:
    """Returns the range that the set's 16-bit pictures use; None if no such picture can be read."""
    assert dataset.headers
    deep = np.flatnonzero(dataset.headers.are_deep)
    chosen = deep[np.unique(np.linspace(0, len(deep) - 1, min(len(deep), MOST_LOOKED_AT)).astype(int))].tolist()
    values = [value for index in chosen if (value := _brightest(dataset, index)) is not None]
    return Range(len(deep), len(values), max(values), dataset.white_level) if values else None


def _brightest(dataset: CocoDataset, index: int) -> int | None:
    try:
        return brightest(dataset.path(index))
    except UserError:  # this is reported when the set is read
        return None

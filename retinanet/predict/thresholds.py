"""Holds the score thresholds of detections, which may differ from class to class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.coco.score_thresholds import threshold_text
from retinanet.runtime.errors import UserError

# A number for all classes; or numbers by class name, where the name None stands for the other classes; or None for the
# threshold in the weights file.
Threshold = float | Mapping[str | None, float] | None


class Thresholds(NamedTuple):
    """Holds the thresholds of C classes."""

    others: float  # of the classes without a threshold of their own
    by_label: np.ndarray  # float64 [C]

    @property
    def lowest(self) -> float:
        return float(self.by_label.min(initial=1.0))

    def text(self, class_names: Sequence[str], labels: Sequence[int]) -> str:
        """Returns the thresholds of the classes in `labels` as text, such as "0.3, 0.5 for traffic light"."""
        own = [label for label in labels if self.by_label[label] != self.others]
        words = [threshold_text(self.others)] if len(own) < len(labels) else []
        words += [f"{threshold_text(self.by_label[label])} for {class_names[label]}" for label in own]
        return ", ".join(words)


def thresholds_of(threshold: Threshold, default: float, class_names: Sequence[str], path: Path) -> Thresholds:
    """Returns the thresholds that a user asked for; `default` is the threshold in the weights file `path`.

    Raises UserError for a name that isn't a class of the file, or a number outside the range 0 to 1.
    """
    by_name: dict[str | None, float] = {}
    if threshold is not None:
        by_name |= threshold if isinstance(threshold, Mapping) else {None: threshold}
    for name, number in by_name.items():
        word = f"{number:g}" if name is None else f"{name}={number:g}"
        if name is not None and name not in class_names:
            raise UserError(
                f"--threshold {word}: {path} has no class {name!r}. Its classes are {', '.join(class_names)}"
            )
        if not 0 <= number <= 1:
            raise UserError(f"--threshold {word}: is not a score from 0 to 1. Use one that is.")
    others = by_name.get(None, default)
    return Thresholds(others, np.array([by_name.get(name, others) for name in class_names], np.float64))

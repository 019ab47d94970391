"""Provides a ResNet-18 with a quarter of the channels: tests of other parts train and save at 1/16 of the cost."""

from pathlib import Path
from unittest.mock import patch

from retinanet.detector import backbone, model

START = Path(__file__).parent / "narrow_start"  # on PYTHONPATH, it makes the networks of a new process narrow
WIDTH = 16  # of the first stage, usually 64


class NarrowBackbone(backbone.Backbone):
    """Replaces the backbone of depth 18; backbones of other depths are unchanged."""

    def __init__(self, depth: int, learn_statistics: bool = False) -> None:
        widths = tuple(WIDTH * growth for growth in (1, 2, 4, 8)) if depth == 18 else backbone.WIDTHS
        with patch.object(backbone, "WIDTHS", widths):
            super().__init__(depth, learn_statistics)


narrowed = patch.object(model, "Backbone", NarrowBackbone)  # has start() and stop(), and is a context manager

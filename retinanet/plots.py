"""Pictures of images with their objects and detections."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retinanet.errors import UserError

# Petroff's ten (https://arxiv.org/abs/2107.02270), which colour-blind people tell apart too.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
PANEL_INCHES = 4.0
DOTS_PER_INCH = 120


class Panel(NamedTuple):
    """One image and the boxes to draw on it. `scores` is None for objects, which have none."""

    title: str
    image: np.ndarray  # uint8 [height, width, 3]
    boxes: np.ndarray  # [N, 4], (left, top, width, height) in pixels of the image
    labels: np.ndarray  # int [N]
    scores: np.ndarray | None  # [N]


def draw_grid(panels: Sequence[Panel], class_names: Sequence[str], columns: int, window: bool = False) -> Figure:
    """A figure of the panels, row by row, with a colour for each class; `window` lets show_windows show it."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    make = pyplot.figure if window else Figure  # pyplot opens windows, and fails where there is no screen
    figure = make(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    colours = class_colours(len(class_names))
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, class_names, colours)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH)


def show_windows() -> None:
    """Show the figures drawn for a window until the user closes them. UserError where there is no screen."""
    if pyplot.get_backend().lower() == "agg":
        raise UserError("--show: there is no screen to open a window on. Open the picture's file instead.")
    pyplot.show()


def class_colours(num_classes: int) -> np.ndarray:
    """As many colours [N, 3] as classes: a palette of ten that tell apart well, or hues all round the circle."""
    if num_classes <= 10:
        return mpl.colormaps["tab10"](np.arange(num_classes))[:, :3]
    return mpl.colormaps["hsv"](np.arange(num_classes) / num_classes)[:, :3]


def _draw_panel(axis: Axes, panel: Panel, class_names: Sequence[str], colours: np.ndarray) -> None:
    axis.imshow(panel.image)
    axis.set_title(panel.title, fontsize=9, parse_math=False)
    for row, (box, label) in enumerate(zip(panel.boxes, panel.labels, strict=True)):
        left, top, width, height = box
        name = class_names[label] if panel.scores is None else f"{class_names[label]} {panel.scores[row]:.2f}"
        axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colours[label], linewidth=1.8))
        axis.text(
            max(left, 0),
            max(top, 0),
            name,
            fontsize=7,
            color="white",
            verticalalignment="bottom" if top > panel.image.shape[0] * 0.06 else "top",
            bbox={"facecolor": colours[label], "edgecolor": "none", "pad": 1.2, "alpha": 0.9},
            clip_on=True,
            parse_math=False,
        )

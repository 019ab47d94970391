"""Pictures of images with their objects and detections."""

import unicodedata
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects, pyplot
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retinanet.errors import UserError
from retinanet.files import require_writable, written_whole
from retinanet.fonts import give_fonts
from retinanet.label_places import place_labels
from retinanet.printable import printable

PANEL_INCHES = 4.0
DOTS_PER_INCH = 120
TITLE_POINTS, LABEL_POINTS = 10, 9
LETTER_WIDTH, LABEL_PAD = 0.58, 0.3  # of the font's size
MOST_LETTERS = 30  # of a class's name, of which one that fills a square, such as a Chinese one, counts as two
# Petroff's ten (https://arxiv.org/abs/2107.02270), which colour-blind people tell apart too.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2"),
)
OUTLINED = [patheffects.Stroke(linewidth=3.2, foreground="white"), patheffects.Normal()]  # to be seen on any ground


class Panel(NamedTuple):
    """One image and the boxes to draw on it. `scores` is None for objects, which have none."""

    title: str
    image: np.ndarray  # uint8 [height, width, 3]
    boxes: np.ndarray  # [N, 4], (left, top, width, height) in pixels of the image
    labels: np.ndarray  # int [N]
    scores: np.ndarray | None  # [N]
    outlines: np.ndarray = np.zeros((0, 4))  # boxes to draw dashed and without a name, for comparison


def draw_grid(panels: Sequence[Panel], class_names: Sequence[str], columns: int, window: bool = False) -> Figure:
    """A figure of the panels, row by row, with a colour for each class; `window` lets show_windows show it.

    With more classes than colours some share one: each box has its name.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    make = pyplot.figure if window else Figure  # pyplot opens windows, and fails where there is no screen
    figure = make(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, class_names)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure, whole or not at all. UserError where it can't be written."""
    give_fonts(figure)
    try:
        with written_whole(path, "wb") as file:
            figure.savefig(file, format=path.suffix[1:].lower(), dpi=DOTS_PER_INCH)
    except OSError as fault:
        raise UserError(f"{path}: can't be written ({fault.strerror}). Choose another place for the picture.") from None


def require_picture_place(path: Path) -> None:
    """UserError, before any work is done for it, where `path` can't be a picture."""
    endings = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in endings or path.is_dir():
        raise UserError(
            f"{path}: must be a file with a picture's ending, such as .png; there are {', '.join(endings)}."
        )
    require_writable(path)


def shortened(name: str) -> str:
    """A class's name, printable, as pictures have room for."""
    name = printable(name)
    ends = list(accumulate(_widths(name), initial=0))
    return name if ends[-1] <= MOST_LETTERS else f"{name[: bisect(ends, MOST_LETTERS - 1) - 1]}…"


def show_windows() -> None:
    """Show the figures drawn for a window until the user closes them. UserError where there is no screen."""
    if pyplot.get_backend().lower() == "agg":
        raise UserError("--show: there is no screen to open a window on. Open the picture's file instead.")
    pyplot.show()


def class_colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _draw_panel(axis: Axes, panel: Panel, class_names: Sequence[str]) -> None:
    height, width = panel.image.shape[:2]
    pixel = max(height, width) / (PANEL_INCHES * 72)  # of the image, in points
    names = [shortened(class_names[label]) for label in panel.labels]
    if panel.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, panel.scores, strict=True)]
    sizes = np.array([(LETTER_WIDTH * sum(_widths(name)) + LABEL_PAD, 1.2 + LABEL_PAD) for name in names]).reshape(
        -1, 2
    )
    corners = np.concatenate([panel.boxes[:, :2], panel.boxes[:, :2] + panel.boxes[:, 2:]], axis=1)
    seen = corners.clip(0, [width, height, width, height])
    seen[:, 2:] -= seen[:, :2]
    places = place_labels(seen, sizes * LABEL_POINTS * pixel, width)
    axis.imshow(panel.image)
    # Names of boxes at the image's top stand above it.
    axis.set_title(printable(panel.title), fontsize=TITLE_POINTS, pad=LABEL_POINTS * 2, parse_math=False)
    for left, top, box_width, box_height in panel.outlines:
        for colour, style in (("black", "solid"), ("white", (0, (4, 3)))):  # to be seen on bright and on dark
            line: dict[str, Any] = {"edgecolor": colour, "linestyle": style, "linewidth": 1.3}
            axis.add_patch(Rectangle((left, top), box_width, box_height, fill=False, **line))
    for box, label, name, (x, y), size in zip(panel.boxes, panel.labels, names, places, sizes, strict=True):
        colour = class_colour(label)
        line = {"edgecolor": colour, "linewidth": 2.0, "path_effects": OUTLINED}
        axis.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, **line))
        axis.text(
            x + LABEL_PAD / 2 * LABEL_POINTS * pixel,
            y + size[1] / 2 * LABEL_POINTS * pixel,
            name,
            fontsize=LABEL_POINTS,
            color=text_colour(colour),
            verticalalignment="center_baseline",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.0},
            parse_math=False,
        )


def _widths(name: str) -> list[int]:
    """About how wide each letter is, as a multiple of a Latin one."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name]


def text_colour(background: str) -> str:
    """Black or white, whichever has more contrast with the colour (WCAG 2: relative luminance)."""
    parts = np.array(mpl.colors.to_rgb(background))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"

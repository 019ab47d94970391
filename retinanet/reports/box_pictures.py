"""Draws images with boxes and labels, placed so that they cover neither the objects nor each other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retinanet.coco.boxes import boxes_of, corners_of, shared_area
from retinanet.reports.figures import DOTS_PER_INCH, _widths, class_colour, shortened, text_colour


def place_labels(boxes: np.ndarray, sizes: np.ndarray, width: float) -> np.ndarray:
    """Returns the top left corners [N, 2] of the labels of boxes [N, 4] in an image of the given `width`.

    `sizes` [N, 2] are the labels' (width, height). Boxes are (left, top, width, height). A label is placed at its box's
    top or bottom edge, where it covers least of the boxes and the earlier labels. It may extend past the image's top
    and bottom, but not past its sides.
    """
    places = np.zeros((len(boxes), 2))
    for row, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        corners = _candidates(box, size)
        corners[:, 0] = corners[:, 0].clip(0, max(0, width - size[0]))
        candidates = np.concatenate([corners, np.broadcast_to(size, corners.shape)], axis=1)
        earlier = np.concatenate([places[:row], sizes[:row]], axis=1)
        # A label over another is unreadable; one over the corner of a box is not.
        over_boxes, over_labels = (shared_area(candidates[:, None], others) for others in (boxes, earlier))
        covered = over_boxes.sum(axis=1) + 3 * over_labels.sum(axis=1)
        places[row] = corners[covered.argmin()]
    return places


def _candidates(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns places above and below the box, at its left, right and middle, then inside.

    Of equal ones, the first wins.
    """
    left, top, right, bottom = corners_of(box)
    above, below = top - size[1], bottom
    end, middle = right - size[0], (left + right - size[0]) / 2
    outside = [(x, y) for y in (above, below) for x in (left, end, middle)]
    return np.array([*outside, (left, top), (left, bottom - size[1])])


PANEL_PIXELS = 480  # longer side of an image in a grid
TITLE_POINTS, LABEL_POINTS = 10, 9
MOST_TITLE_LETTERS = 60  # longer titles would run into the next one
LETTER_WIDTH, LABEL_PAD = 0.58, 0.3  # fractions of the font size
OUTLINED = [patheffects.Stroke(linewidth=3.2, foreground="white"), patheffects.Normal()]  # visible on any background


class Panel(NamedTuple):
    """One image and the boxes to draw on it. `scores` is None for objects, which have none."""

    title: str
    image: np.ndarray  # uint8 [height, width, 3]
    boxes: np.ndarray  # [N, 4], (left, top, width, height) in pixels of the image
    labels: np.ndarray  # int [N]
    scores: np.ndarray | None  # [N]
    outlines: np.ndarray = np.zeros((0, 4))  # [M, 4], drawn dashed, for comparison
    outline_labels: np.ndarray | None = None  # int [M], of those outlines that have names


def draw_grid(
    panels: Sequence[Panel],
    class_names: Sequence[str],
    columns: int,
    *,
    size: int = PANEL_PIXELS,
    with_names: bool = True,
    window: bool = False,
) -> Figure:
    """Returns a figure of the panels, row by row, with a colour for each class; `window` lets show_windows show it.

    `size` is the longer side of the largest image, in pixels of the picture; without `with_names` boxes have no text.
    With more classes than colours, some share a colour.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    inches = size / DOTS_PER_INCH
    make = pyplot.figure if window else Figure  # pyplot opens windows, and fails without a screen
    figure = make(figsize=(inches * columns, inches * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, class_names, inches, with_names)
    return figure


def _draw_panel(axis: Axes, panel: Panel, class_names: Sequence[str], inches: float, with_names: bool) -> None:
    height, width = panel.image.shape[:2]
    pixel = max(height, width) / (inches * 72)  # of the image, in points of the figure
    larger = max(1.0, (inches * DOTS_PER_INCH / PANEL_PIXELS) ** 0.5)  # text and lines grow with the picture, but less
    points = LABEL_POINTS * larger
    names = [shortened(class_names[label]) for label in panel.labels]
    if panel.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, panel.scores, strict=True)]
    sizes = np.array([(LETTER_WIDTH * sum(_widths(name)) + LABEL_PAD, 1.2 + LABEL_PAD) for name in names]).reshape(
        -1, 2
    )
    visible = boxes_of(corners_of(panel.boxes).clip(0, [width, height, width, height]))
    places = place_labels(visible, sizes * points * pixel, width)
    axis.imshow(panel.image)
    # The names of boxes at the image's top edge are above it.
    axis.set_title(
        shortened(panel.title, MOST_TITLE_LETTERS), fontsize=TITLE_POINTS * larger, pad=points * 2, parse_math=False
    )
    _draw_outlines(axis, panel, class_names, 0.8 * points if with_names else 0)
    for box, label, name, (x, y), size in zip(panel.boxes, panel.labels, names, places, sizes, strict=True):
        colour = class_colour(label)
        line = {"edgecolor": colour, "linewidth": 2.0 * larger, "path_effects": OUTLINED}
        axis.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, **line))
        if not with_names:
            continue
        axis.text(
            x + LABEL_PAD / 2 * points * pixel,
            y + size[1] / 2 * points * pixel,
            name,
            fontsize=points,
            color=text_colour(colour),
            verticalalignment="center_baseline",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.0},
            parse_math=False,
        )


def _draw_outlines(axis: Axes, panel: Panel, class_names: Sequence[str], points: float) -> None:
    """Draws dashed boxes, with their names if they have some and `points`, the text size, isn't 0."""
    names = None if panel.outline_labels is None else [shortened(class_names[label]) for label in panel.outline_labels]
    for number, (left, top, width, height) in enumerate(panel.outlines):
        for colour, style in (("black", "solid"), ("white", (0, (4, 3)))):  # visible on bright and on dark
            line: dict[str, Any] = {"edgecolor": colour, "linestyle": style, "linewidth": 1.3}
            axis.add_patch(Rectangle((left, top), width, height, fill=False, **line))
        if names and points:
            effects = [patheffects.Stroke(linewidth=2.0, foreground="black"), patheffects.Normal()]
            where: dict[str, Any] = {"verticalalignment": "bottom", "clip_on": True, "parse_math": False}
            axis.text(
                left, top + height, f" {names[number]}", fontsize=points, color="white", path_effects=effects, **where
            )

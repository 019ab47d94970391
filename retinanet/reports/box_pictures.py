"""Draws images with boxes, whose labels are placed to cover objects and each other as little as possible."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import patheffects, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retinanet.coco.annotations import owners_of
from retinanet.coco.boxes import boxes_of, corners_of
from retinanet.evaluation.analysis import Analysis, is_taken
from retinanet.evaluation.compare import Comparison
from retinanet.reports.figures import DOTS_PER_INCH
from retinanet.reports.labels import class_colour, letter_widths, place_labels, shortened, text_colour
from retinanet.runtime.errors import UserError

if TYPE_CHECKING:  # vis.py doesn't need PyTorch
    from retinanet.data.dataset import CocoDataset


PANEL_PIXELS = 480  # longer side of an image in a grid
TITLE_POINTS, LABEL_POINTS = 10, 9
MOST_TITLE_LETTERS = 60  # a longer title would run into the next title
LETTER_WIDTH, LABEL_PAD = 0.58, 0.3  # fractions of the font size
OUTLINED = [patheffects.Stroke(linewidth=3.2, foreground="white"), patheffects.Normal()]  # visible on any background


class Panel(NamedTuple):
    """Holds an image and the boxes to draw on it; `scores` is None for annotated objects."""

    title: str
    image: np.ndarray  # uint8 [height, width, 3]
    boxes: np.ndarray  # [N, 4], (left, top, width, height) in pixels of the image
    labels: np.ndarray  # int [N]
    scores: np.ndarray | None  # [N]
    outlines: np.ndarray = np.zeros((0, 4))  # [M, 4], drawn dashed, for comparison
    outline_labels: np.ndarray | None = None  # int [M]; None for outlines without names


def draw_grid(
    panels: Sequence[Panel],
    class_names: Sequence[str],
    columns: int,
    *,
    size: int = PANEL_PIXELS,
    with_names: bool = True,
    window: bool = False,
) -> Figure:
    """Returns a figure of the panels, row by row, with one colour per class.

    `size` is the side of a panel, in pixels of the figure. Without `with_names`, boxes have no text. With `window`,
    show_windows can show the figure. If there are more classes than colours, some classes share a colour.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    inches = size / DOTS_PER_INCH
    make = pyplot.figure if window else Figure  # only pyplot opens windows, but it fails without a screen
    figure = make(figsize=(inches * columns, inches * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, class_names, inches, with_names)
    return figure


def _draw_panel(axis: Axes, panel: Panel, class_names: Sequence[str], inches: float, with_names: bool) -> None:
    height, width = panel.image.shape[:2]
    pixel = max(height, width) / (inches * 72)  # pixels of the image per point of the figure
    larger = max(1.0, (inches * DOTS_PER_INCH / PANEL_PIXELS) ** 0.5)  # text and lines grow less than the picture
    points = LABEL_POINTS * larger
    names = [shortened(class_names[label]) for label in panel.labels]
    if panel.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, panel.scores, strict=True)]
    widths = np.array([LETTER_WIDTH * sum(letter_widths(name)) for name in names])
    sizes = np.stack([widths, np.full(len(names), 1.2)], axis=1) + LABEL_PAD  # [N, 2]
    visible = boxes_of(corners_of(panel.boxes).clip(0, [width, height, width, height]))
    places = place_labels(visible, sizes * points * pixel, width)
    axis.imshow(panel.image)
    # The title leaves room for the names of boxes at the image's top edge.
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
    """Draws the panel's outlines as dashed boxes, with their names, if any, in text of size `points` (0: no names)."""
    names = None if panel.outline_labels is None else [shortened(class_names[label]) for label in panel.outline_labels]
    for number, (left, top, width, height) in enumerate(panel.outlines):
        for colour, style in (("black", "solid"), ("white", (0, (4, 3)))):  # visible on any background
            line: dict[str, Any] = {"edgecolor": colour, "linestyle": style, "linewidth": 1.3}
            axis.add_patch(Rectangle((left, top), width, height, fill=False, **line))
        if names and points:
            effects = [patheffects.Stroke(linewidth=2.0, foreground="black"), patheffects.Normal()]
            where: dict[str, Any] = {"verticalalignment": "bottom", "clip_on": True, "parse_math": False}
            axis.text(
                left, top + height, f" {names[number]}", fontsize=points, color="white", path_effects=effects, **where
            )


MOST_SHOWN = 4  # the maximum number of images won, and of images lost


def chosen_objects_panel(title: str, dataset: "CocoDataset", image: int, chosen: np.ndarray) -> Panel:
    """Returns a panel of the image with those of its objects that are marked in `chosen`, bool [T]."""
    annotations = dataset.annotations
    shown = chosen & (owners_of(annotations) == image)
    return Panel(title, dataset.original(image), annotations.boxes[shown], annotations.labels[shown], None)


def chosen_detections_panel(
    title: str, dataset: "CocoDataset", image: int, analysis: Analysis, chosen: np.ndarray
) -> Panel:
    """Returns a panel of the image with those of its detections that are marked in `chosen`, bool [D].

    The image's objects, except crowds, are drawn dashed, with their names.
    """
    annotations, found = dataset.annotations, analysis.found
    shown = chosen & (found.images == image)
    objects = (owners_of(annotations) == image) & ~annotations.crowds
    return Panel(
        title,
        dataset.original(image),
        found.boxes[shown],
        found.labels[shown],
        found.scores[shown],
        outlines=annotations.boxes[objects],
        outline_labels=annotations.labels[objects],
    )


def no_pictures_line(dataset: "CocoDataset") -> str | None:
    """Returns a line about the images that can't be drawn because their files are missing; None if none are missing."""
    there, folder = dataset.images_there(), dataset.image_folder
    if there.all():
        return None
    if there.any():
        return f"The pictures leave out {(~there).sum()} of {len(there)} images, which are not in {folder}"
    return f"No pictures, as the images of {dataset.annotations.path} are not in {folder}"


def comparison_panels(comparison: Comparison, a: Analysis, b: Analysis, dataset: "CocoDataset") -> list[Panel]:
    """Returns two panels (A, B) for each of the images where B gains most, then for each of those where it loses most.

    A panel shows the detections above its run's best threshold. Images that are missing or can't be read are left out.
    """
    gains = np.where(dataset.images_there(), comparison.f1[1] - comparison.f1[0], 0)
    order = np.argsort(-gains, kind="stable")
    chosen = [*order[gains[order] > 0][:MOST_SHOWN], *order[gains[order] < 0][::-1][:MOST_SHOWN]]
    panels = []
    for image in chosen:
        verdict = "won" if gains[image] > 0 else "lost"
        name = dataset.annotations.file_name(image)
        runs = zip((f"{name}: A", f"B, {verdict}"), (a, b), comparison.f1, strict=True)
        with contextlib.suppress(UserError):
            panels += [
                chosen_detections_panel(f"{title}: F1 {f1[image]:.2f}", dataset, image, one, is_taken(one))
                for title, one, f1 in runs
            ]
    return panels

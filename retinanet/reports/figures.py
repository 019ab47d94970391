"""Styles figures (colours, text) and saves them to files."""

import unicodedata
from bisect import bisect
from itertools import accumulate
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from retinanet.reports.fonts import give_fonts
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import require_writable, written_whole
from retinanet.runtime.printable import printable

DOTS_PER_INCH = 120
MOST_LETTERS = 30  # in a class name; a full-width letter, such as a Chinese character, counts as two
# Petroff's ten colours (https://arxiv.org/abs/2107.02270), which colour-blind readers can distinguish.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2"),
)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure to `path` atomically. Raises UserError if writing fails."""
    give_fonts(figure)
    with (
        file_error_explained(path, "can't be written", "Choose another place for the picture."),
        written_whole(path, "wb") as file,
    ):
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=DOTS_PER_INCH)


def require_picture_place(path: Path) -> None:
    """Raises UserError if no picture can be written to `path`. Called before the work starts."""
    endings = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in endings or path.is_dir():
        raise UserError(f"{path}: is not the name of a picture. Use one of these endings: {', '.join(endings)}.")
    require_writable(path)


def shortened(name: str, most: int = MOST_LETTERS) -> str:
    """Returns the name made printable and cut to the width of `most` Latin letters."""
    name = printable(name)
    ends = list(accumulate(letter_widths(name), initial=0))
    return name if ends[-1] <= most else f"{name[: bisect(ends, most - 1) - 1]}…"


def show_windows() -> None:
    """Shows the figures drawn for a window until the user closes them. Raises UserError if there is no screen."""
    if pyplot.get_backend().lower() == "agg":
        raise UserError("--show: there is no screen to open a window on. Open the picture file instead.")
    pyplot.show()


def class_colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def letter_widths(name: str) -> list[int]:
    """Returns the approximate width of each letter, in widths of a Latin letter."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name]


def text_colour(background: str) -> str:
    """Returns black or white, whichever has more contrast with `background` (WCAG 2: relative luminance)."""
    parts = np.array(mpl.colors.to_rgb(background))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"

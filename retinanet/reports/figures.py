"""Figures as files: colours, text and saving."""

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
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import require_writable, written_whole
from retinanet.runtime.printable import printable

DOTS_PER_INCH = 120
MOST_LETTERS = 30  # of a class's name, of which one that fills a square, such as a Chinese one, counts as two
# Petroff's ten (https://arxiv.org/abs/2107.02270), which colour-blind people tell apart too.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2"),
)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure, whole or not at all. UserError where it can't be written."""
    give_fonts(figure)
    try:
        with written_whole(path, "wb") as file:
            figure.savefig(file, format=path.suffix[1:].lower(), dpi=DOTS_PER_INCH)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}). Choose another place for the picture.") from None


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


def _widths(name: str) -> list[int]:
    """About how wide each letter is, as a multiple of a Latin one."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name]


def text_colour(background: str) -> str:
    """Black or white, whichever has more contrast with the colour (WCAG 2: relative luminance)."""
    parts = np.array(mpl.colors.to_rgb(background))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"

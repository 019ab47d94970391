"""Saves figures to files, and shows them in windows."""

from pathlib import Path

from matplotlib import pyplot
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from retinanet.reports.fonts import give_fonts
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import require_writable, written_whole

DOTS_PER_INCH = 120


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure to `path` atomically. Raises UserError if writing fails."""
    give_fonts(figure)
    with (
        file_error_explained(path, "can't be written", "Choose another place for the picture."),
        written_whole(path, "wb") as file,
    ):
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=DOTS_PER_INCH)


def require_picture_place(path: Path) -> None:
    """Raises UserError if no picture can be written to `path`. Call this before the work starts."""
    endings = FigureCanvasBase.get_supported_filetypes().keys() - {"pgf"}  # which needs LaTeX
    if path.suffix[1:].lower() not in endings or path.is_dir():
        raise UserError(
            f"{path}: is not the name of a picture. Use one of these endings: {', '.join(sorted(endings))}."
        )
    require_writable(path)


def picture_beside(path: Path, name: str) -> Path:
    """Returns the path of a second picture, next to the picture at `path`, with `name` added to its file name."""
    return path.with_stem(f"{path.stem}_{name}")


def show_windows() -> None:
    """Shows the figures with windows until the user closes all windows. Raises UserError if there is no screen."""
    if pyplot.get_backend().lower() == "agg":
        raise UserError("--show: there is no screen to open a window on. Open the picture file instead.")
    pyplot.show()

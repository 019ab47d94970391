"""Writes report.html for two result files: the interactive part with the data of both, and the comparison as text."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.coco.annotations import Annotations
from retinanet.evaluation.compare import Comparison
from retinanet.reports.analysis_text import change_text
from retinanet.reports.embedded_images import Pictures
from retinanet.reports.html_page import Illustration, document, figure, preformatted
from retinanet.reports.page_data import Run, page_data
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.printable import counted


def write_comparison(
    path: Path,
    runs: tuple[Run, Run],
    comparison: Comparison,
    annotations: Annotations,
    lines: Sequence[str],
    pictures: Pictures,
    compared: bytes | None,
) -> None:
    """Writes the page to `path`; `lines` are the comparison as text, and `compared` is its picture as PNG, if any.

    Raises UserError if the file can't be written.
    """
    title = f"{runs[0].source} and {runs[1].source} on {annotations.path}"
    parts = ["<h2>Comparison</h2>", preformatted(lines)]
    if compared:
        caption = "The images where B gains most, then those where it loses most."
        parts.append(figure(Illustration("Comparison", caption, compared, "png")))
    page = document(
        title,
        f"AP of B - A: {change_text(comparison.differences[0].difference)}",
        f"{title}: {counted(len(annotations.image_ids), 'image')}",
        parts,
        page_data(title, annotations, runs, pictures=pictures, comparison=comparison),
    )
    with file_error_explained(path, "can't be written", "Choose another --report."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(page)

"""Writes the report on a result file: metrics.json, the figures, and report.html, which combines them."""

import io
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from retinanet.coco.annotations import owners_of
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.analysis import Analysis, is_taken
from retinanet.evaluation.average_precision import RECALLS
from retinanet.evaluation.coco_table import CocoTable
from retinanet.evaluation.tide_errors import ERROR_KINDS, MISSED
from retinanet.reports.analysis_charts import class_chart, confusion_chart, error_chart, precision_recall_chart
from retinanet.reports.analysis_text import analysis_lines, precision_at_50
from retinanet.reports.box_pictures import Panel, chosen_detections_panel, chosen_objects_panel, draw_grid
from retinanet.reports.embedded_images import Pictures
from retinanet.reports.figures import DOTS_PER_INCH
from retinanet.reports.fonts import give_fonts
from retinanet.reports.html_page import Illustration, PageText, page_of
from retinanet.reports.metrics import evaluation_numbers, json_text
from retinanet.reports.page_data import Run, page_data
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.printable import counted

REPORT, METRICS = "report.html", "metrics.json"
WORST_IMAGES, PANEL_COLUMNS = 4, 2  # images shown per error type, in this many columns
# The heading and the caption of each figure.
ABOUT_FIGURES = {
    "classes.png": ("Classes", "AP and AP50 of each class; a line is a 95% confidence interval, where one is known."),
    "precision_recall.png": ("Precision and recall", "Precision of each class as its recall grows."),
    "confusion.png": ("Confusion", "What the objects of each class were classified as, at the score with the best F1."),
    "errors.png": (
        "Errors",
        "What each kind of error costs (TIDE, Bolya et al., 2020): the AP50 gained by fixing it alone. The bars don't "
        "add up to 1 - AP50, here {loss:.3f}, the cost of all errors together: an object that only low-scored "
        "detections touch counts as badly placed or of the wrong class, not as missed, and fixing one of these kinds "
        "gains little while the other false detections still score above it.",
    ),
}


def write_report(
    folder: Path,
    analysis: Analysis,
    table: CocoTable,
    dataset: CocoDataset,
    source: str,
    record: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
    suspects: dict[str, Any] | None = None,
) -> None:
    """Writes metrics.json, the figures and report.html to `folder`; `source` names the evaluated file.

    `record` is the result file's record, if it has one. The page shows `pictures` and, in its Labels tab, `suspects`,
    the content of label_suspects.json. Raises UserError if the folder can't be written to or an image can't be read.
    """
    annotations = dataset.annotations
    figures, about = _figures(analysis, table, dataset)
    drawn = {name: _picture(figure, name) for name, figure in figures.items()}
    record = record or {}
    made_by = {name: record[name] for name in ("checkpoint", "epoch") if name in record} | record.get("settings", {})
    num_objects = int((~annotations.crowds).sum())
    title = f"{source} on {annotations.path}"
    text = PageText(
        title,
        f"{title}: {counted(len(annotations.image_ids), 'image')}, {counted(num_objects, 'object')}, "
        f"{counted(len(analysis.found.scores), 'detection')}",
        table.text.splitlines(),
        {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "results": source, "annotations": annotations.path} | made_by,
        analysis_lines(analysis, len(annotations.image_ids)),
    )
    kinds = {name: "jpeg" if name.endswith("jpg") else "png" for name in drawn}
    data = page_data(
        title, annotations, [Run("A", source, record.get("checkpoint"), analysis)], pictures=pictures, suspects=suspects
    )
    illustrations = [Illustration(*about[name], drawn[name], kinds[name]) for name in drawn]
    page = page_of(text, analysis, illustrations, data)
    files = {
        METRICS: json_text(evaluation_numbers(source, annotations, analysis, table, record)).encode(),
        **drawn,
        REPORT: page.encode(),
    }
    with file_error_explained(folder, "can't be written to", "Choose another --report."):
        folder.mkdir(parents=True, exist_ok=True)
        for kind_name in ERROR_KINDS:  # an earlier report may have more pictures
            (folder / _worst_name(kind_name)).unlink(missing_ok=True)
        for name, content in files.items():
            with written_whole(folder / name, "wb") as file:
                file.write(content)


def _figures(
    analysis: Analysis, table: CocoTable, dataset: CocoDataset
) -> tuple[dict[str, Figure], dict[str, tuple[str, str]]]:
    """Returns the figures by file name, and the heading and caption of each."""
    names = dataset.annotations.class_names
    figures = {
        "classes.png": class_chart(analysis.classes),
        "precision_recall.png": precision_recall_chart(RECALLS, precision_at_50(table), names),
        "confusion.png": confusion_chart(analysis.confusion, names, analysis.best.threshold),
        "errors.png": error_chart(
            analysis.lost, ERROR_KINDS, sum(numbers.is_never_found for numbers in analysis.classes)
        ),
    }
    about = dict(ABOUT_FIGURES)
    has_image = dataset.images_there()
    heading, caption = about["errors.png"]
    about["errors.png"] = heading, caption.format(loss=1 - analysis.ap50.value)
    for kind, kind_name in enumerate(ERROR_KINDS):
        panels, count = _worst_images(kind, analysis, dataset, has_image)
        if panels:
            name = _worst_name(kind_name)
            figures[name] = draw_grid(panels, names, columns=PANEL_COLUMNS)
            shown = "the missed objects" if kind == MISSED else "these detections; the objects are dashed"
            about[name] = "Worst images", f"{kind_name.capitalize()}: {count} in all. The worst images, with {shown}."
    return figures, about


def _worst_name(kind_name: str) -> str:
    return f"worst_{kind_name.replace(' ', '_')}.jpg"  # photographs are five times as large in PNG


def _worst_images(
    kind: int, analysis: Analysis, dataset: CocoDataset, has_image: np.ndarray
) -> tuple[list[Panel], int]:
    """Returns panels of the images with the most errors of the given kind, and the number of such errors in the set.

    Only images marked in `has_image`, bool [N], are drawn. Detections below the best threshold don't count; the others
    are weighted by score, because confident errors cost more.
    """
    if kind == MISSED:
        chosen = analysis.errors.missed
        images = owners_of(dataset.annotations)[chosen]
        badness = np.bincount(images, minlength=len(dataset))
    else:
        chosen = (analysis.errors.kinds == kind) & is_taken(analysis)
        images = analysis.found.images[chosen]
        badness = np.bincount(images, analysis.found.scores[chosen], minlength=len(dataset))
    badness = np.where(has_image, badness, 0)
    panels = []
    for image in np.argsort(-badness, kind="stable")[:WORST_IMAGES].tolist():
        if badness[image] > 0:
            title = dataset.annotations.file_name(image)
            with suppress(UserError):  # an unreadable image is left out, like a missing one
                if kind == MISSED:
                    panels.append(chosen_objects_panel(title, dataset, image, chosen))
                else:
                    panels.append(chosen_detections_panel(title, dataset, image, analysis, chosen))
    return panels, len(images)


def _picture(figure: Figure, file_name: str) -> bytes:
    give_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_name[-3:], dpi=DOTS_PER_INCH)
    return buffer.getvalue()

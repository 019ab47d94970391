"""The report on a result file: metrics.json, figures, and report.html with all of it."""

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.analysis import Analysis, is_taken
from retinanet.evaluation.average_precision import RECALLS
from retinanet.evaluation.coco_table import CocoTable
from retinanet.evaluation.tide_errors import ERROR_KINDS, MISSED
from retinanet.reports.analysis_charts import class_chart, confusion_chart, error_chart, precision_recall_chart
from retinanet.reports.analysis_text import analysis_lines, metrics_of, number_text, precision_at_50
from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.figures import DOTS_PER_INCH
from retinanet.reports.fonts import give_fonts
from retinanet.reports.panels import chosen_detections_panel, chosen_objects_panel
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.printable import printable

REPORT = "report.html"
WORST_IMAGES, PANEL_COLUMNS = 4, 2  # shown of each kind of error
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
img { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: .8rem; }
table { border-collapse: collapse; font-size: .9rem; } 
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
figure { margin: 1.5rem 0; } figcaption { color: #444; }
"""
CAPTIONS = {
    "classes.png": "AP and AP50 of each class; the lines are 95% intervals.",
    "precision_recall.png": "Precision of each class as its recall grows.",
    "confusion.png": "What the objects of each class were classified as, at the score with the best F1.",
    "errors.png": "What each kind of error costs (TIDE, Bolya et al., 2020). The kinds don't add up to the total loss.",
}


def write_report(folder: Path, analysis: Analysis, table: CocoTable, dataset: CocoDataset, source: str) -> None:
    """Write metrics.json, the figures and report.html to `folder`; `source` names the evaluated file.

    UserError if the folder can't be written to or an image can't be read.
    """
    annotations = dataset.annotations
    names = annotations.class_names
    figures = {
        "classes.png": class_chart(analysis.classes),
        "precision_recall.png": precision_recall_chart(RECALLS, precision_at_50(table), names),
        "confusion.png": confusion_chart(analysis.confusion, names, analysis.best.threshold),
        "errors.png": error_chart(analysis.lost, ERROR_KINDS),
    }
    captions = dict(CAPTIONS)
    for kind, kind_name in enumerate(ERROR_KINDS):
        panels, count = _worst_images(kind, analysis, dataset)
        if panels:
            name = f"worst_{kind_name.replace(' ', '_')}.jpg"  # photographs are five times as large as PNG
            figures[name] = draw_grid(panels, names, columns=PANEL_COLUMNS)
            shown = "the objects missed" if kind == MISSED else "these detections, and dashed the objects"
            captions[name] = f"{kind_name.capitalize()}: {count} in all. The worst images, with {shown}."
    pictures = {name: _picture(figure, name) for name, figure in figures.items()}
    metrics = {"results": source, "annotations": str(annotations.path), "num_images": len(annotations.image_ids)}
    metrics |= metrics_of(analysis, table)
    page = _page(source, annotations, table, analysis, pictures, captions)
    files = {
        "metrics.json": (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode(),
        **pictures,
        REPORT: page.encode(),
    }
    with file_error_explained(folder, "can't be written to", "Choose another --report."):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("worst_*.jpg"):  # an earlier report may have had more
            old.unlink()
        for name, content in files.items():
            with written_whole(folder / name, "wb") as file:
                file.write(content)


def _worst_images(kind: int, analysis: Analysis, dataset: CocoDataset) -> tuple[list[Panel], int]:
    """The images with most errors of a kind, and the number of these errors in the set.

    Errors are weighted by their score, as confident ones cost more; those below the best threshold are not drawn.
    """
    if kind == MISSED:
        chosen = analysis.errors.missed
        images = owners_of(dataset.annotations)[chosen]
        badness = np.bincount(images, minlength=len(dataset))
    else:
        chosen = (analysis.errors.kinds == kind) & is_taken(analysis)
        images = analysis.found.images[chosen]
        badness = np.bincount(images, analysis.found.scores[chosen], minlength=len(dataset))
    panels = []
    for image in np.argsort(-badness, kind="stable")[:WORST_IMAGES].tolist():
        if badness[image] > 0:
            title = dataset.annotations.file_names[image]
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


def _page(
    source: str,
    annotations: Annotations,
    table: CocoTable,
    analysis: Analysis,
    pictures: dict[str, bytes],
    captions: dict[str, str],
) -> str:
    """A self-contained HTML page."""
    title = _html(f"{source} on {annotations.path}")
    lines = [*table.text.splitlines(), "", *analysis_lines(analysis, len(annotations.image_ids))]
    parts = [
        f"<figure><img src='data:image/{'jpeg' if name.endswith('jpg') else 'png'};base64,"
        f"{base64.b64encode(picture).decode()}' alt='{_html(captions[name])}'>"
        f"<figcaption>{_html(captions[name])}</figcaption></figure>"
        for name, picture in pictures.items()
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f"<html lang='en'><head><meta charset='utf-8'><title>{title}</title>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>AP {analysis.ap}</h1>",
            f"<p>{title}: {len(annotations.image_ids)} images, {int((~annotations.crowds).sum())} objects.</p>",
            _class_table(analysis),
            *parts,
            "<h2>As text</h2><pre>" + "\n".join(map(_html, lines)) + "</pre>",
            "</body></html>",
        ]
    )


def _class_table(analysis: Analysis) -> str:
    rows = [
        ("All classes", "", analysis.ap, analysis.ap50, "", analysis.best),
        *((one.name, one.num_objects, one.ap, one.ap50, number_text(one.ar), one.best) for one in analysis.classes),
    ]
    head = ("Class", "Objects", "AP", "AP50", "AR", "Best F1", "from score", "precision", "recall")
    cells = [head, *((*row[:5], *(number_text(row[5][place]) for place in (1, 0, 2, 3))) for row in rows)]
    lines = [
        f"<tr>{''.join(f'<{tag}>{_html(str(cell))}</{tag}>' for cell in line)}</tr>"
        for tag, line in zip(["th"] + ["td"] * len(rows), cells, strict=True)
    ]
    return f"<table>{''.join(lines)}</table>"


def _html(line: str) -> str:
    return html.escape(printable(line))

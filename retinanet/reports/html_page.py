"""Lays out a report as one self-contained HTML page, in which long tables are partly collapsed."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retinanet.coco.score_thresholds import threshold_text
from retinanet.evaluation.analysis import Analysis, ClassNumbers, WorkingPoint
from retinanet.evaluation.tide_errors import ERROR_KINDS
from retinanet.reports.analysis_text import lost_cells, never_found_lines, number_text
from retinanet.runtime.printable import counted, printable

MOST_ROWS = 20  # the number of rows of a table that are not collapsed
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
img { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: .8rem; overflow-wrap: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
td, th { padding: .2rem .5rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 8rem; max-width: 20rem; }
.settings td { text-align: left; white-space: normal; }
figure { margin: 1.5rem 0; } figcaption { color: #444; }
summary { cursor: pointer; margin: .8rem 0; }
"""


class Illustration(NamedTuple):
    """A figure of the report with its heading and caption."""

    heading: str
    caption: str
    picture: bytes
    kind: str  # png or jpeg


class PageText(NamedTuple):
    """The text of the page."""

    title: str
    summary: str
    coco_lines: Sequence[str]
    settings: Mapping[str, Any]  # of the evaluation and the training run, as far as known
    lines: Sequence[str]  # the analysis as text


HEADINGS = ("Classes", "Precision and recall", "Confusion", "Errors", "Worst images")


def page_of(text: PageText, analysis: Analysis, illustrations: Sequence[Illustration]) -> str:
    """Returns the page: summary, COCO table, settings, a section for each of HEADINGS, and the analysis as text."""
    parts = [
        "<!DOCTYPE html>",
        f"<html lang='en'><head><meta charset='utf-8'><title>{_html(text.title)}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>AP {analysis.ap}</h1>",
        f"<p>{_html(text.summary)}</p>",
        "<h2>COCO's numbers</h2>",
        _pre(text.coco_lines),
        "<h2>Settings</h2>",
        _settings_table(text.settings),
    ]
    for heading in HEADINGS:
        figures = [_figure(illustration) for illustration in illustrations if illustration.heading == heading]
        tables = {"Classes": _class_table, "Errors": _error_table}
        table = tables[heading](analysis) if heading in tables else []
        if figures or table:
            parts += [f"<h2>{heading}</h2>", *table, *figures]
    parts += ["<h2>As text</h2>", f"<details><summary>The analysis as text</summary>{_pre(text.lines)}</details>"]
    return "\n".join([*parts, "</body></html>"])


def _figure(illustration: Illustration) -> str:
    data = base64.b64encode(illustration.picture).decode()
    caption = _html(illustration.caption)
    return (
        f"<figure><img src='data:image/{illustration.kind};base64,{data}' alt='{caption}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _class_table(analysis: Analysis) -> list[str]:
    """Returns the table of all classes by descending AP; rows after the first MOST_ROWS are collapsed."""
    classes = sorted(
        analysis.classes, key=lambda numbers: -numbers.ap.value if numbers.ap.value == numbers.ap.value else 2.0
    )
    head = ("Class", "Objects", "AP", "AP50", "AR", "Best F1", "above score", "precision", "recall")
    total = ("All classes", "", analysis.ap, analysis.ap50, "", *_best_cells(analysis.best))
    return _folded_table(head, total, list(map(_class_row, classes)))


def _error_table(analysis: Analysis) -> list[str]:
    """Returns the classes that are never found, then a table of the AP50 that each class loses, lowest AP50 first."""
    known = [numbers for numbers in analysis.classes if numbers.num_objects]
    rows = [
        (numbers.name, numbers.num_objects, *lost_cells(numbers))
        for numbers in sorted(known, key=lambda numbers: numbers.ap50.value)
    ]
    total = ("All classes", "", *map(number_text, (1 - analysis.ap50.value, *analysis.lost)))
    named = [f"<p>{_html(line)}</p>" for line in never_found_lines(analysis.classes)]
    return [*named, *_folded_table(("AP50 lost by class", "Objects", "1 - AP50", *ERROR_KINDS), total, rows)]


def _folded_table(head: Sequence[str], total: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns a table of the `total` and the first MOST_ROWS rows, and a collapsed table of the other rows."""
    shown, folded = rows[:MOST_ROWS], rows[MOST_ROWS:]
    tables = [_table(head, [total, *shown])]
    if folded:
        tables.append(
            f"<details><summary>{counted(len(folded), 'more class')}</summary>{_table(head, folded)}</details>"
        )
    return tables


def _class_row(numbers: ClassNumbers) -> tuple[Any, ...]:
    return (
        numbers.name,
        numbers.num_objects,
        numbers.ap,
        numbers.ap50,
        number_text(numbers.ar),
        *_best_cells(numbers.best),
    )


def _best_cells(best: WorkingPoint) -> tuple[str, ...]:
    shares = number_text(best.precision), number_text(best.recall)
    return number_text(best.f1), threshold_text(best.threshold), *shares


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [
        f"<tr>{''.join(f'<{tag}>{_html(str(cell))}</{tag}>' for cell in row)}</tr>"
        for tag, row in zip(["th"] + ["td"] * len(rows), [head, *rows], strict=True)
    ]
    return f"<div class='wide'><table>{''.join(lines)}</table></div>"


def _settings_table(settings: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{_html(name)}</td><td>{_html(str(value))}</td></tr>" for name, value in settings.items())
    few = f"<table class='settings'>{rows}</table>"
    return few if len(settings) <= MOST_ROWS else f"<details><summary>{len(settings)} settings</summary>{few}</details>"


def _pre(lines: Sequence[str]) -> str:
    return "<pre>" + "\n".join(map(_html, lines)) + "</pre>"


def _html(line: str) -> str:
    return html.escape(printable(line))

"""Lays out a report as one HTML page, self-contained unless it links to pictures; long tables are partly collapsed."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.coco.score_thresholds import threshold_text
from retinanet.evaluation.analysis import Analysis, ClassNumbers, WorkingPoint
from retinanet.evaluation.tide_errors import ERROR_KINDS
from retinanet.reports.analysis_text import lost_cells, never_found_lines, number_text
from retinanet.reports.page_data import data_text
from retinanet.runtime.printable import counted, printable

MOST_ROWS = 20  # the number of rows of a table that are not collapsed
PARTS = Path(__file__).parent / "page"
STYLES = ("page.css", "images.css")
# Joined in this order into one script, whose parts share one scope.
SCRIPTS = (
    *("data.js", "numbers.js", "state.js", "elements.js", "thresholds.js", "tables.js", "charts.js", "confusion.js"),
    *("images.js", "viewer.js", "labels.js", "page.js"),
)
# Runs before the page is laid out, so that the parts that the application replaces are never displayed.
MARK = "document.documentElement.className = 'application';"
SECTIONS = ("numbers", "curves", "confusion", "errors", "class_bars")  # of the Numbers tab
EMBEDDED, LINKED = "data:", "data: file: 'self'"  # where a page may load pictures from


class Illustration(NamedTuple):
    """Holds a figure of the report with its heading and caption."""

    heading: str
    caption: str
    picture: bytes
    kind: str  # png or jpeg


class PageText(NamedTuple):
    """Holds the text of the page."""

    title: str
    summary: str
    coco_lines: Sequence[str]
    settings: Mapping[str, Any]  # of the evaluation and the training run, as far as known
    lines: Sequence[str]  # the analysis as text


HEADINGS = ("Classes", "Precision and recall", "Confusion", "Errors", "Worst images")


REPLACED = ("Classes", "Precision and recall", "Confusion")  # the application has better versions of these


def page_of(text: PageText, analysis: Analysis, illustrations: Sequence[Illustration], data: dict[str, Any]) -> str:
    """Returns the page: summary, COCO table, settings, a section for each of HEADINGS, and the analysis as text.

    If the browser runs scripts, the interactive part (the application) shows `data` in place of the sections in
    REPLACED.
    """
    parts = [
        "<h2>COCO metrics</h2>",
        preformatted(text.coco_lines),
        "<h2>Settings</h2>",
        _settings_table(text.settings),
    ]
    for heading in HEADINGS:
        figures = [figure(illustration) for illustration in illustrations if illustration.heading == heading]
        tables = {"Classes": _class_table, "Errors": _error_table}
        table = tables[heading](analysis) if heading in tables else []
        if figures or table:
            section = "<section class='replaced'>" if heading in REPLACED else "<section>"
            parts += [section, f"<h2>{heading}</h2>", *table, *figures, "</section>"]
    parts += [
        "<h2>As text</h2>",
        f"<details><summary>The analysis as text</summary>{preformatted(text.lines)}</details>",
    ]
    return document(text.title, f"AP {analysis.ap}", text.summary, parts, data)


def document(title: str, heading: str, summary: str, parts: Sequence[str], data: dict[str, Any]) -> str:
    """Returns a page with the application, which shows `data`, and the static `parts`, which don't need scripts."""
    style = "".join((PARTS / name).read_text(encoding="utf-8") for name in STYLES)
    parts_of_script = ((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = "(() => {\n'use strict';\n" + "".join(parts_of_script) + "})();\n"
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(MARK)} {_hash(script)}; "
        f"img-src {_picture_sources(data)}; form-action 'none'; base-uri 'none'"
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            "<html lang='en'><head><meta charset='utf-8'>",
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{_html(title)}</title>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<script>{MARK}</script>",
            f"<style>{style}</style></head><body>",
            f"<header><h1>{heading}</h1>",
            f"<p>{_html(summary)}</p></header>",
            _application(has_suspects=data["suspects"] is not None),
            "<main id='details' data-tab='details'>",
            *parts,
            "</main>",
            f"<script type='application/json' id='data'>{data_text(data)}</script>",
            f"<script>{script}</script>",
            "</body></html>",
        ]
    )


def _application(has_suspects: bool) -> str:
    """Returns the elements that the scripts fill."""
    sections = "".join(f"<section id='{name}'></section>" for name in SECTIONS)
    labels = "<section id='labels' data-tab='labels'></section>" if has_suspects else ""
    return (
        "<div id='application'><nav id='tabs' aria-label='Parts of the page'></nav>"
        "<section id='thresholds' aria-label='Thresholds'></section>"
        "<div class='parts' data-tab='numbers'><nav id='jump' class='jump' aria-label='Numbers'></nav>"
        f"{sections}</div><section id='images' data-tab='images'></section>{labels}"
        "<dialog id='viewer'></dialog></div>"
    )


def _picture_sources(data: dict[str, Any]) -> str:
    pictures = data["images"]["pictures"]
    return EMBEDDED if all(source is None or source.startswith(EMBEDDED) for source in pictures) else LINKED


def _hash(content: str) -> str:
    """Returns the source expression of a Content-Security-Policy that allows an inline element with this `content`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def figure(illustration: Illustration) -> str:
    """Returns the illustration and its caption as HTML."""
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
    """Returns the classes that are never found, then a table of the AP50 that each class loses, by ascending AP50."""
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


def preformatted(lines: Sequence[str]) -> str:
    """Returns the lines, unchanged and in a monospaced font, as HTML."""
    return "<pre>" + "\n".join(map(_html, lines)) + "</pre>"


def _html(line: str) -> str:
    return html.escape(printable(line))

import json
import locale
import re

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from support.data_folder import write_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.coco_table import evaluate
from retinanet.evaluation.confusion import Confusion
from retinanet.evaluation.intervals import Interval
from retinanet.reports.analysis_charts import class_chart, confusion_chart, precision_recall_chart
from retinanet.reports.html_page import HEADINGS, PageText, page_of
from retinanet.reports.html_report import write_report
from retinanet.runtime.errors import UserError

AWKWARD = ("banana <b>&'\"", "$x_1$ nan")  # no tags, no mathematics


@pytest.fixture
def dataset(tmp_path):
    write_set(tmp_path, "val", 9)
    path = tmp_path / "val.json"
    content = json.loads(path.read_text())
    for category, name in zip(content["categories"], AWKWARD, strict=True):
        category["name"] = name
    path.write_text(json.dumps(content))
    return CocoDataset(load_annotations(path), tmp_path / "images" / "val", 64, 96)


def rows_about(annotations):
    """A hit, and one of each kind of error."""
    rows = []
    for image, (row, label) in enumerate(zip(annotations.boxes, annotations.labels, strict=True)):
        left, top, width, height = row.tolist()
        right, wrong = annotations.category_ids[label], annotations.category_ids[1 - label]
        image_id = int(annotations.image_ids[image])
        for category_id, box, score in (
            (right, [left, top, width, height], 0.9),
            (right, [left, top, width, height], 0.8),
            (wrong, [left, top, width, height], 0.95),
            (right, [left, top, width, height * 0.3], 0.7),
            (wrong, [left, top, width, height * 0.3], 0.85),
            (right, [0, 0, 3, 3], 0.92),
        )[: 6 if image % 2 else 0]:
            rows.append({"image_id": image_id, "category_id": category_id, "bbox": box, "score": score})
    return rows


def test_the_report_needs_nothing_else(tmp_path, dataset):
    annotations, folder = dataset.annotations, tmp_path / "out" / "report"
    rows = rows_about(annotations)
    analysis, table = (
        analyse(annotations, found_of(rows, annotations), 50),
        evaluate(annotations, found_of(rows, annotations), "pycocotools"),
    )
    write_report(folder, analysis, table, dataset, source="val <results>.json")
    page = (folder / "report.html").read_text()
    assert "banana &lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert table.text.splitlines()[0] in page
    assert f"AP {analysis.ap}" in page
    static = re.sub("<script.*?</script>", "", page, flags=re.DOTALL)
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?([^'\" >)]{1,30})", static)
    pictures = {path.stem for path in (*folder.glob("*.png"), *folder.glob("*.jpg"))}
    assert len(sources) == len(pictures)
    assert all(re.match("data:image/(png|jpeg);base64,", source) for source in sources)
    assert not re.search(r"<script src|<link|@import", page)
    assert {"classes", "precision_recall", "confusion", "errors"} < pictures
    assert {"worst_wrong_class", "worst_missed", "worst_background"} <= pictures

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["AP"]["value"] == pytest.approx(table.numbers[0])
    assert [one["name"] for one in metrics["classes"]] == list(AWKWARD)
    assert metrics["num_images"] == 9
    assert metrics["coco"]["APl"] is None  # no large object
    assert len(metrics["precision_recall_50"]["precision"][AWKWARD[0]]) == 101
    assert sum(map(sum, metrics["confusion"]["counts"])) > 8


def test_a_report_of_nothing_found_takes_the_place_of_another(tmp_path, dataset):
    annotations = dataset.annotations
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "worst_case.jpg").write_bytes(b"a picture of the user's")
    for rows in (rows_about(annotations), []):
        analysis, table = (
            analyse(annotations, found_of(rows, annotations), 20),
            evaluate(annotations, found_of(rows, annotations), "pycocotools"),
        )
        write_report(tmp_path / "report", analysis, table, dataset, source="results.json")
    assert {path.stem for path in tmp_path.glob("report/worst_*")} == {"worst_case", "worst_missed"}
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["best_f1"]["threshold"] is None


def test_the_errors_begin_with_the_classes_that_are_never_found(tmp_path, dataset):
    annotations = dataset.annotations
    rows = [row for row in rows_about(annotations) if row["category_id"] == annotations.category_ids[1]]
    analysis = analyse(annotations, found_of(rows, annotations), 0)
    table = evaluate(annotations, found_of(rows, annotations), "pycocotools")
    write_report(tmp_path / "report", analysis, table, dataset, source="results.json")
    page = (tmp_path / "report" / "report.html").read_text()
    errors = page[page.index("<h2>Errors</h2>") : page.index("<h2>Worst images</h2>")]
    named = errors.index("<p>Never found at any useful score (")
    assert named < errors.index("<th>AP50 lost by class</th>") < errors.index("<figure>")
    assert f"banana &lt;b&gt;&amp;&quot; ({analysis.classes[0].num_objects} objects)" in errors.replace("&#x27;", "")
    assert re.search(r"<td>banana.*?</td><td>\d+</td><td>1\.000</td>", errors)
    assert f"don&#x27;t add up to 1 - AP50, here {1 - analysis.ap50.value:.3f}" in errors


def test_a_place_that_is_a_file(tmp_path, dataset):
    (tmp_path / "report").write_text("")
    analysis, table = (
        analyse(dataset.annotations, found_of([], dataset.annotations), 0),
        evaluate(dataset.annotations, found_of([], dataset.annotations), "pycocotools"),
    )
    with pytest.raises(UserError, match=r"report: can't be written to .*--report"):
        write_report(tmp_path / "report", analysis, table, dataset, source="results.json")


def all_pairs(num_classes):
    true, found = np.divmod(np.arange((num_classes + 1) ** 2), num_classes + 1)
    return Confusion(num_classes, true, found, np.ones(len(true), int))


def test_charts_of_many_classes(dataset):
    analysis = analyse(dataset.annotations, found_of(rows_about(dataset.annotations), dataset.annotations), 20)
    classes = [analysis.classes[0]._replace(name=f"class {label}") for label in range(80)]
    assert len(class_chart(classes[:20]).axes[0].get_yticklabels()) == 20
    assert len(class_chart(classes).axes[0].get_yticklabels()) == 30  # the best and the worst
    curves = np.linspace(1, 0, 101)[:, None] * np.linspace(0.1, 1, 80)
    figure = precision_recall_chart(np.linspace(0, 1, 101), curves, [one.name for one in classes])
    assert len(figure.legends[0].get_texts()) == 9  # the best, the worst, and the mean
    assert len(confusion_chart(all_pairs(80), [one.name for one in classes], 0.5).axes[0].get_yticklabels()) == 26


def test_whiskers_are_drawn_only_where_there_is_an_interval(dataset):
    analysis = analyse(dataset.annotations, found_of(rows_about(dataset.annotations), dataset.annotations), 20)
    sure = analysis.classes[0]._replace(ap=Interval(0.5, 0.4, 0.6), ap50=Interval(0.5, 0.4, 0.6))
    unsure = sure._replace(ap=Interval(0.7, np.nan, np.nan), ap50=Interval(0.7, np.nan, np.nan))
    for classes, count in (([sure], 1), ([sure, unsure], 1), ([unsure], 0)):
        bars = [one for one in class_chart(classes).axes[0].containers if isinstance(one, ErrorbarContainer)]
        assert [len(bar.lines[2][0].get_segments()) for bar in bars] == [count, count]


def test_the_page_has_an_order_and_folds_the_rest_away(tmp_path, dataset):
    annotations = dataset.annotations
    analysis = analyse(annotations, found_of(rows_about(annotations), annotations), 0)
    table = evaluate(annotations, found_of(rows_about(annotations), annotations), "pycocotools")
    write_report(
        tmp_path / "report", analysis, table, dataset, "rows.json", {"settings": {"depth": 18, "weights": "<file>"}}
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == ["COCO metrics", "Settings", *HEADINGS, "As text"]
    assert page.index("Average Precision") < page.index("<td>depth</td><td>18</td>") < page.index("<th>Class</th>")
    assert "&lt;file&gt;" in page
    assert page.count("<figure>") == page.count("<figcaption>") == len(list((tmp_path / "report").glob("*.[jp][pn]g")))
    no_pictures = {"suspects": None, "images": {"pictures": []}}
    many = analysis._replace(classes=[analysis.classes[0]._replace(name="x" * 200 + f"{row}") for row in range(80)])
    page = page_of(PageText("", "", [], {}, []), many, [], no_pictures)
    assert "<summary>60 more classes</summary>" in page
    assert page.index("<summary>60 more") < page.index("</details>")
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")  # no UTF-8
    try:
        assert page_of(PageText("", "", [], {}, []), many, [], no_pictures) == page
    finally:
        locale.setlocale(locale.LC_CTYPE, before)

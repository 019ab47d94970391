"""The page of a report, as Chromium shows it: its numbers are those of the evaluation."""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from support.page import chromium

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import owners_of
from retinanet.coco.results import found_of
from retinanet.coco.score_thresholds import above, threshold_below
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.compare import compare
from retinanet.evaluation.counts import count_at
from retinanet.reports.html_page import Illustration, PageText, document, page_of
from retinanet.reports.page_data import Run, page_data
from retinanet.settings.predict import predict_settings

THRESHOLDS = [step / 100 for step in range(101)]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\u202e\u200frtl 'quoted' $(touch x)",
    "é" * 10_000,
    "{{a}}&amp;\n",
)


def write_set(path: Path, num_classes: int, num_images=40, num_objects=160, names=None, empty_class=None) -> Path:
    """Writes an annotation file with crowds, and images without objects at the end."""
    draw = np.random.default_rng(num_classes)
    labels = draw.integers(1, num_classes + 1, num_objects)
    labels[labels == empty_class] = 1 + empty_class % num_classes if empty_class else 1
    content = {
        "images": [{"id": 7 * i, "file_name": f"{i}.jpg", "width": 300, "height": 200} for i in range(num_images)],
        "categories": [{"id": i, "name": names[i - 1] if names else f"class {i}"} for i in range(1, num_classes + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": 7 * int(draw.integers(num_images - 3)),
                "category_id": int(label),
                "bbox": [*draw.integers(0, 150, 2).tolist(), *draw.integers(10, 60, 2).tolist()],
                "iscrowd": int(number % 9 == 0),
            }
            for number, label in enumerate(labels, start=1)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def rows_near(annotations, per_object=4, seed=0):
    """Detections near the objects and anywhere, some of other classes, some with equal scores or scores on a step."""
    draw = np.random.default_rng(seed)
    images = np.repeat(np.arange(len(annotations.image_ids)), np.diff(annotations.first))
    rows = []
    for image, box, label in zip(images.tolist(), annotations.boxes.tolist(), annotations.labels.tolist(), strict=True):
        for _ in range(int(draw.integers(per_object + 1))):
            moved = np.array(box) + draw.normal(0, 0.12, 4) * np.array([box[2], box[3], box[2], box[3]])
            its = draw.choice(len(annotations.category_ids)) if draw.random() < 0.3 else label
            to = int(draw.choice(len(annotations.image_ids))) if draw.random() < 0.1 else image
            score = float(draw.integers(1, 101) / 100 if draw.random() < 0.5 else draw.random())
            rows.append(
                {
                    "image_id": int(annotations.image_ids[to]),
                    "category_id": annotations.category_ids[its],
                    "bbox": [float(moved[0]), float(moved[1]), abs(float(moved[2])) + 1, abs(float(moved[3])) + 1],
                    "score": score,
                }
            )
    return rows


def page_of_runs(path: Path, annotations, *runs, checkpoint=None, with_comparison=False):
    """Writes a page without pictures on lists of result rows; returns the analyses."""
    analyses = [analyse(annotations, found_of(rows, annotations), 20 if with_comparison else 0) for rows in runs]
    data = page_data(
        "a page",
        annotations,
        [Run(name, f"{name}.json", checkpoint, one) for name, one in zip("AB", analyses, strict=False)],
        comparison=compare(*analyses, annotations) if with_comparison else None,
    )
    path.write_text(document("a page", "a page", "", [], data))
    return analyses


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def opened(browser, path):
    browser.get("about:blank")
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []


def voc5(folder):
    if "VOC5" not in os.environ:
        pytest.skip("needs $VOC5, a dataset of real photographs")
    annotations = load_annotations(Path(os.environ["VOC5"]) / "val.json")
    return annotations, rows_near(annotations)


def eighty_classes(folder):
    annotations = load_annotations(write_set(folder / "set.json", 80, num_objects=600))
    return annotations, rows_near(annotations)


def no_detections(folder):
    return load_annotations(write_set(folder / "set.json", 3)), []


def class_without_objects(folder):
    annotations = load_annotations(write_set(folder / "set.json", 4, empty_class=3))
    return annotations, rows_near(annotations)


@pytest.mark.parametrize("case", [voc5, eighty_classes, no_detections, class_without_objects])
def test_every_threshold_gives_the_numbers_of_the_evaluation(browser, tmp_path, case):
    annotations, rows = case(tmp_path)
    (analysis,) = page_of_runs(tmp_path / "page.html", annotations, rows)
    opened(browser, tmp_path / "page.html")
    own = np.array([(7 * label % 100) / 100 for label in range(len(annotations.class_names))])
    for class_thresholds in (None, own):
        if class_thresholds is not None:
            browser.execute_script("report.change({own: arguments[0]})", own.tolist())
        shown = browser.execute_script(
            """return arguments[0].map((common) => {
              report.change({common});
              const {counts: [counts], values: [values], confusion} = report;
              const texts = [...document.querySelectorAll("table.classes tbody tr")].map((row) =>
                [...row.cells].slice(-6).map((cell) => cell.textContent));
              return {values, errors: [...counts.errors], wrongOnEmpty: counts.wrongOnEmpty,
                confusion: [...confusion], texts, totals: document.getElementById("totals").textContent};
            })""",
            THRESHOLDS,
        )
        for threshold, page in zip(THRESHOLDS, shown, strict=True):
            expected = count_at(
                analysis.found, analysis.matches, analysis.errors, annotations, threshold, class_thresholds
            )
            total = expected.classes.total()
            columns = {
                "Right": "true_positives",
                "False positives": "false_positives",
                "Not found": "misses",
                "Precision": "precision",
                "Recall": "recall",
                "F1": "f1",
            }
            for place, (column, name) in enumerate(columns.items()):
                numbers = np.concatenate([getattr(total, name), getattr(expected.classes, name)])
                values = [None if number != number else number for number in numbers.tolist()]
                assert page["values"][column] == values, (threshold, column)
                texts = [row[place] for row in page["texts"]]
                assert all(
                    text == "-" if value is None else float(text) == pytest.approx(value, abs=0.000501)
                    for text, value in zip(texts, values, strict=True)
                )
            assert page["errors"] == expected.errors.flatten().tolist()
            assert page["confusion"] == expected.confusion.table().flatten().tolist()
            num_empty = int((np.diff(annotations.first) == 0).sum())
            if num_empty:
                assert page["wrongOnEmpty"] / num_empty == expected.false_positives_per_empty_image
            assert f"precision {page['texts'][0][3]}, recall {page['texts'][0][4]}" in page["totals"]


def test_curves_have_the_average_precision_of_the_evaluation(browser, tmp_path):
    annotations, rows = class_without_objects(tmp_path)
    (analysis,) = page_of_runs(tmp_path / "page.html", annotations, rows)
    opened(browser, tmp_path / "page.html")
    names = [button.text.rsplit(" ", 1) for button in browser.find_elements("css selector", "#curves .legend button")]
    expected = {numbers.name: numbers.ap50.value for numbers in analysis.classes if numbers.num_objects}
    assert {name: float(text) for name, text in names} == pytest.approx(expected, abs=0.000501)


def test_buttons_set_the_thresholds_of_classes(browser, tmp_path):
    annotations, rows = class_without_objects(tmp_path)
    (analysis,) = page_of_runs(tmp_path / "page.html", annotations, rows, checkpoint="runs/it's/best.pt")
    opened(browser, tmp_path / "page.html")
    assert browser.execute_script("return report.state.common") == analysis.best.threshold

    press(browser, "Best F1 of each class")
    thresholds = browser.execute_script("return report.state.own")
    best = [numbers.best.threshold for numbers in analysis.classes]
    assert thresholds == [None if threshold != threshold else threshold for threshold in best]
    words = shlex.split(browser.find_element("id", "command").text)
    assert words[:5] == ["python", "-m", "retinanet.predict", "SOURCE", "--checkpoint_path"]
    assert words[5:7] == ["runs/it's/best.pt", "--threshold"]
    assert np.float32(words[7]) == np.float32(analysis.best.threshold)
    told = dict(word.rsplit("=", 1) for word in words[8:])
    assert {name: np.float32(text) for name, text in told.items()} == {
        name: np.float32(threshold)
        for name, threshold in zip(annotations.class_names, best, strict=True)
        if threshold == threshold and threshold != analysis.best.threshold
    }

    for wanted in (0.25, 0.5, 1):
        browser.execute_script("document.getElementById('least_recall').value = arguments[0]", wanted)
        press(browser, "Recall of at least")
        thresholds = browser.execute_script("return report.state.own")
        assert thresholds == [highest_reaching(analysis, label, wanted) for label in range(4)]

    press(browser, "Same for all")
    assert browser.execute_script("return report.state.own") == [None] * 4


def test_the_command_has_thresholds_that_predict_takes(browser, tmp_path):
    annotations, rows = class_without_objects(tmp_path)
    page_of_runs(tmp_path / "page.html", annotations, [row | {"score": 0.0} for row in rows])
    opened(browser, tmp_path / "page.html")
    press(browser, "Best F1 of each class")
    assert browser.execute_script("return report.state.common") < 0
    words = shlex.split(browser.find_element("id", "command").text)
    assert predict_settings(words[3:]).detection.by_class() == {None: 0}


def highest_reaching(analysis, label, wanted):
    """The highest threshold, just below a score, at which the class has the recall; tried one by one."""
    of_class = analysis.found.labels == label
    for score in sorted(set(analysis.found.scores[of_class].astype(np.float32)), reverse=True):
        threshold = threshold_below(score)
        taken = of_class & above(analysis.found.scores, threshold)
        if analysis.matches.hits[0, taken].sum() / max(1, analysis.classes[label].num_objects) >= wanted:
            return threshold
    return None


def press(browser, text):
    browser.find_element("xpath", f"//button[.='{text}']").click()


def test_keys_alone_move_the_threshold_and_open_the_images_of_a_cell(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    annotations, rows = class_without_objects(tmp_path)
    (analysis,) = page_of_runs(tmp_path / "page.html", annotations, rows)
    opened(browser, tmp_path / "page.html")
    keys_to(browser, "threshold", Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.execute_script("return report.state.common") == 0.02
    keys_to(browser, "threshold_number", Keys.CONTROL, "a", Keys.CONTROL, "0.3", Keys.ENTER)
    assert browser.execute_script("return report.state.common") == 0.3
    keys_to(browser, "threshold_number", Keys.CONTROL, "a", Keys.CONTROL, "7", Keys.ENTER)
    assert browser.execute_script("return report.state.common") == 0.3
    assert browser.find_element("id", "threshold_number").get_property("value") == "0.3"

    matrix = browser.find_element("css selector", "#confusion canvas")
    matrix.send_keys(*[Keys.ARROW_RIGHT] * 4)
    confusion = count_at(analysis.found, analysis.matches, analysis.errors, annotations, 0.3).confusion.table()
    assert browser.find_element("id", "matrix_cell").text == f"class 1, not found: {confusion[0, 4]}"
    matrix.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#images")
    filtered = browser.execute_script("return report.state.filter")
    assert (filtered["trueClass"], filtered["foundClass"], filtered["text"]) == (0, 4, "class 1, not found")
    taken = above(analysis.found.scores, 0.3)
    missed = np.flatnonzero((annotations.labels == 0) & ~annotations.crowds)
    missed = missed[~np.isin(missed, analysis.matches.any_class[taken])]
    assert num_matching(browser) == len(set(owners_of(annotations)[missed]))
    browser.back()
    assert browser.execute_script("return report.state.tab") == "numbers"

    bar = browser.find_element("css selector", "#errors .bar:last-child")
    bar.send_keys(Keys.ENTER)
    assert browser.execute_script("return report.state.filter.kind") == "not found"
    missed = np.flatnonzero(~annotations.crowds)
    missed = missed[~np.isin(missed, analysis.matches.objects[taken])]
    assert num_matching(browser) == len(set(owners_of(annotations)[missed]))
    browser.back()
    browser.find_elements("css selector", "table.classes tr:nth-child(3) button.figure")[1].send_keys(Keys.ENTER)
    wrong = taken & ~analysis.matches.hits[0] & ~analysis.matches.ignored[0] & (analysis.found.labels == 1)
    assert num_matching(browser) == len(set(analysis.found.images[wrong]))
    browser.back()
    browser.find_element("css selector", "#curves canvas").send_keys(Keys.ARROW_LEFT, Keys.ENTER)
    filtered = browser.execute_script("return report.state.filter")
    assert filtered["kind"] == "false positive"
    assert filtered["minScore"] in [threshold_below(score) for score in analysis.found.scores]


def num_matching(browser):
    return int(browser.find_element("css selector", ".matching").text.split(" of ")[0])


def keys_to(browser, place, *keys):
    browser.find_element("id", place).send_keys(*keys)


def test_two_runs_stand_side_by_side(browser, tmp_path):
    annotations, rows = class_without_objects(tmp_path)
    analyses = page_of_runs(
        tmp_path / "page.html", annotations, rows, rows_near(annotations, seed=1), with_comparison=True
    )
    opened(browser, tmp_path / "page.html")
    texts = browser.execute_script(
        """report.change({common: 0.4});
        return [...document.querySelectorAll("table.classes tr.all td")].map((cell) => cell.textContent).slice(-12)"""
    )
    totals = [count_at(one.found, one.matches, one.errors, annotations, 0.4).classes.total() for one in analyses]
    assert texts[:2] == [str(total.true_positives[0]) for total in totals]
    assert texts[-2:] == [f"{total.f1[0]:.3f}" for total in totals]
    table = browser.find_element("xpath", "//h2[@id='differences']/following::table").text
    difference = compare(*analyses, annotations).differences[0].difference
    assert (
        f"AP {analyses[0].ap.value:.3f} {analyses[1].ap.value:.3f} {difference.value:+.3f} ({difference.low:+.3f}"
        in table
    )


@pytest.mark.parametrize("width", [400, 1280])
def test_hostile_names_stay_text_and_nothing_leaves_the_page(browser, tmp_path, width):
    annotations = load_annotations(write_set(tmp_path / "set.json", len(HOSTILE), names=HOSTILE))
    page_of_runs(tmp_path / "page.html", annotations, rows_near(annotations))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened(browser, tmp_path / "page.html")
    heads = [head.text for head in browser.find_elements("css selector", "table.classes tbody th")]
    assert heads[1:3] == list(HOSTILE[:2])
    assert "\\u202e" in heads[3]
    assert browser.execute_script("return document.querySelectorAll('img, script[src], iframe').length") == 0
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    press(browser, "Best F1 of each class")
    words = shlex.split(browser.find_element("id", "command").get_property("textContent"))
    assert {word.rsplit("=", 1)[0] for word in words[8:]} <= set(annotations.class_names)
    blocked = browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('blocked'))"
    )
    assert blocked == "blocked"
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))


def test_without_scripts_the_tables_and_charts_are_there(browser, tmp_path):
    annotations, rows = class_without_objects(tmp_path)
    analysis = analyse(annotations, found_of(rows, annotations), 0)
    data = page_data("title", annotations, [Run("A", "a.json", None, analysis)])
    text = PageText("title", "summary", ["coco"], {"depth": 18}, ["as text"])
    pixel = bytes.fromhex("89504e470d0a1a0a")
    pictures = [Illustration("Confusion", "the confusion", pixel, "png")]
    (tmp_path / "page.html").write_text(page_of(text, analysis, pictures, data))
    shown = {}
    for is_off in (False, True):
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": is_off})
        browser.get("about:blank")
        browser.get((tmp_path / "page.html").as_uri() + "#details")
        places = {
            "static table": "main .replaced table",
            "figure": "main figure",
            "coco": "main > pre",
            "tabs": "#tabs a",
            "slider": "#threshold",
        }
        shown[is_off] = {
            name: [place.is_displayed() for place in browser.find_elements("css selector", selector)]
            for name, selector in places.items()
        }
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert shown[True] == {"static table": [True], "figure": [True], "coco": [True], "tabs": [], "slider": []}
    assert shown[False] == {
        "static table": [False],
        "figure": [False],
        "coco": [True],
        "tabs": [True] * 3,
        "slider": [False],
    }

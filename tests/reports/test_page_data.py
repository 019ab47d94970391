import base64
import hashlib
import json
import re

import numpy as np
import pytest
from support.evaluation_sets import random_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse, image_f1
from retinanet.evaluation.compare import compare
from retinanet.reports.html_page import document
from retinanet.reports.page_data import Run, data_text, page_data


@pytest.fixture
def case(tmp_path):
    path, rows = random_set(tmp_path)
    annotations = load_annotations(path)
    return annotations, analyse(annotations, found_of(rows, annotations), 20)


def array(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_arrays_are_those_of_the_analysis(case):
    annotations, analysis = case
    data = json.loads(data_text(page_data("t", annotations, [Run("A", "a.json", "best.pt", analysis)])))
    (run,) = data["runs"]
    detections = run["detections"]
    assert (array(detections["score"], "<f4") == analysis.found.scores.astype(np.float32)).all()
    assert (array(detections["class"], "<i4") == analysis.found.labels).all()
    assert (array(detections["box"], "<f4").reshape(-1, 4) == analysis.found.boxes.astype(np.float32)).all()
    assert (array(detections["match"], "<i4") == analysis.matches.objects).all()
    assert (array(detections["kind"], "i1") == analysis.errors.kinds).all()
    assert (array(run["f1"], "<f8") == image_f1(analysis, annotations)).all()
    assert (array(data["images"]["width"], "<i4") == 400).all()
    assert (array(data["objects"]["crowd"], "u1") == annotations.crowds).all()
    assert run["threshold"] == analysis.best.threshold
    assert (run["checkpoint"], run["ap"]) == ("best.pt", str(analysis.ap))


def test_without_a_true_positive_the_threshold_is_the_usual_one(case):
    annotations, _ = case
    nothing = analyse(annotations, found_of([], annotations), 0)
    data = json.loads(data_text(page_data("t", annotations, [Run("A", "a.json", None, nothing)])))
    assert data["runs"][0]["threshold"] == 0.3
    assert data["runs"][0]["detections"]["score"] == ""


def test_a_comparison_has_the_intervals_of_its_differences(case):
    annotations, analysis = case
    comparison = compare(analysis, analysis, annotations)
    runs = [Run(name, f"{name}.json", None, analysis) for name in "AB"]
    data = page_data("t", annotations, runs, comparison=comparison)
    name, a, b, difference, wins = data["comparison"]["differences"][0]
    assert (name, a, b, difference, wins) == ("AP", a, a, "+0.000 (+0.000 to +0.000)", 0.5)


def test_ids_that_javascript_would_change_are_text(case):
    annotations, analysis = case
    annotations = annotations._replace(image_ids=annotations.image_ids + 2**53)
    suspect = {"id": 0, "image_id": 2**53 + 1, "annotation_id": 7.0, "category_id": 3, "score": 0.5}
    suspects = {"classes": [{"id": -(2**53) - 1, "name": "cat"}], "suspects": [suspect]}
    data = page_data("t", annotations, [Run("A", "a.json", None, analysis)], suspects=suspects)
    assert data["images"]["ids"] == list(map(str, annotations.image_ids.tolist()))
    assert data["suspects"] == {
        "classes": [{"id": str(-(2**53) - 1), "name": "cat"}],
        "suspects": [suspect | {"image_id": str(2**53 + 1), "annotation_id": "7.0"}],
    }


def test_only_the_scripts_of_the_page_may_run(case):
    annotations, analysis = case
    annotations.class_names[0] = "</script><script>alert(1)</script><!--"
    page = document("t", "t", "", [], page_data("t", annotations, [Run("A", "a.json", None, analysis)]))
    policy = re.search('Content-Security-Policy" content="(.*?)"', page)[1]
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    allowed = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 2
    assert re.search("script-src (.*?);", policy)[1].split() == [f"'sha256-{digest}'" for digest in allowed]
    assert policy.startswith("default-src 'none';")
    (data,) = re.findall("<script type='application/json' id='data'>(.*?)</script>", page, re.DOTALL)
    assert json.loads(data)["classes"][0] == annotations.class_names[0]

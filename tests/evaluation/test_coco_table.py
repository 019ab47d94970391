import contextlib
import importlib.util
import io
import json
import math
from argparse import ArgumentTypeError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.built import small_network
from support.evaluation_sets import random_set
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.coco_table import AP, AP50, BACKENDS, evaluate
from retinanet.settings.shared import eval_backend


def plain_pycocotools(path, rows, tmp_path):
    """What its documentation says to do, with files."""
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "rows.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"], printed.getvalue()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_and_text_are_pycocotools(tmp_path, seed, backend):
    path, rows = random_set(tmp_path, seed=seed)
    table = evaluate(load_annotations(path), found_of(rows, load_annotations(path)), backend)
    stats, precision, text = plain_pycocotools(path, rows, tmp_path)
    assert table.numbers == stats.tolist()
    assert np.array_equal(table.precision, precision)
    assert table.text + "\n" == text
    assert len(table.text.splitlines()) == 12
    assert 0.1 < table.numbers[AP] < table.numbers[AP50] < 0.95


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_are_names_only(tmp_path, capfd, backend):
    tables = [
        evaluate(load_annotations(path), found_of(rows, load_annotations(path)), backend)
        for path, rows in (random_set(tmp_path, first) for first in (0, 1, -5, 2**60))
    ]
    assert all(table.numbers == tables[0].numbers for table in tables)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 2**31), st.sampled_from([-30, 0, 1, 2**62]))
def test_backends_are_equal_to_the_last_digit(tmp_path, seed, first_id):
    path, rows = random_set(tmp_path, first_id, seed)
    tables = [evaluate(load_annotations(path), found_of(rows, load_annotations(path)), backend) for backend in BACKENDS]
    assert tables[0].numbers == tables[1].numbers
    assert np.array_equal(tables[0].precision, tables[1].precision)


def test_auto_is_the_fastest_that_is_installed(monkeypatch):
    assert eval_backend("auto") == "hotcoco"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "hotcoco" else find(name))
    assert eval_backend("auto") == eval_backend("pycocotools") == "pycocotools"
    with pytest.raises(ArgumentTypeError, match="pip install hotcoco"):
        eval_backend("hotcoco")
    with pytest.raises(ArgumentTypeError, match="expected auto"):
        eval_backend("cocoeval")


def test_a_perfect_result(tmp_path):
    path, _ = random_set(tmp_path)
    content = json.loads(path.read_text())
    rows = [{**one, "score": 0.9} for one in content["annotations"]]
    numbers = evaluate(load_annotations(path), found_of(rows, load_annotations(path)), BACKENDS[0]).numbers
    assert numbers[AP] == numbers[AP50] == pytest.approx(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_detected_gives_zeros(tmp_path, backend):
    path, _ = random_set(tmp_path)
    assert evaluate(load_annotations(path), found_of([], load_annotations(path)), backend).numbers == [0.0] * 12


@pytest.mark.parametrize("wrong", [{"category_id": 77}, {"image_id": 10**6}, {"image_id": -1}])
def test_rows_about_something_else_are_a_bug(tmp_path, wrong):
    path, rows = random_set(tmp_path)
    with pytest.raises((AssertionError, KeyError)):
        found_of([{**rows[0], **wrong}], load_annotations(path))


@pytest.fixture
def no_backend(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in BACKENDS else find(name, *more)
    )


def test_without_a_backend_a_table_is_refused_before_the_work(no_backend, script, coco_path, tmp_path):
    assert eval_backend("auto") == "auto"  # flags are read as ever
    told = "The COCO table needs hotcoco or pycocotools, and neither is installed. Run pip install pycocotools."
    output = tmp_path / "output"
    flags = ("--coco_path", coco_path)
    trained = script("train", *flags, "--output_path", output, *TINY)
    assert (trained.code, trained.out) == (2, "")
    assert told in trained.err
    assert not output.exists()

    model = small_network()
    names = {
        "class_names": ["red", "green"],
        "category_ids": [1, 2],
        "settings": {},
        "architecture": model.architecture,
    }
    sides = {"min_side": 64, "max_side": 96, "batch_size": 2, "epoch": 1}
    save_checkpoint(Checkpoint(model=model.state_dict(), **names, **sides), tmp_path / "model.pt")
    results = tmp_path / "results.json"
    tested = script("test", *flags, "--checkpoint_path", tmp_path / "model.pt", "--results_path", results)
    assert tested.code == 2
    assert told in tested.err
    assert not results.exists()

    results.write_text("[]")
    checked = script("test_submission", *flags, "--results_path", results)
    assert checked.code == 2
    assert told in checked.err


def test_without_a_backend_what_needs_no_table_works(no_backend, script, coco_path, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text("[]")
    both = (tmp_path / "a.json", tmp_path / "b.json")
    compared = script("test", "--coco_path", coco_path, "--compare", *both, "--report", tmp_path, "--num_draws", 0)
    assert compared.code == 0, compared.err


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ap_of_a_class_counts_a_hundred_detections_of_an_image_as_the_tables_does(tmp_path, backend):
    boxes = [[12.0 * number, 0, 10, 10] for number in range(20)]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 300, "height": 100}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box} for number, box in enumerate(boxes)
        ],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    annotations = load_annotations(tmp_path / "set.json")
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5} for box in boxes]
    numbers = evaluate(annotations, found_of(rows, annotations), backend).by_name(annotations.class_names)
    assert (numbers["AP"], numbers["AR10"], numbers["AP of a"]) == pytest.approx((1, 0.5, 1))
    assert math.isnan(numbers["AP of b"])

"""The best epoch is reported at the end of a run, stored in run.json, and used for test.py's hint."""

import json
import os
import re
import signal

import numpy as np
import pytest
from support.accidents import before_each_batch
from support.data_folder import change_json
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.checkpoints.output_folder import read_evaluations, write_evaluations
from retinanet.coco.results import Found
from retinanet.commands.evaluate import better_checkpoint
from retinanet.training import evaluation
from retinanet.training.evaluation import evaluations_since_best

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def trained(script, coco_path, tmp_path, monkeypatch):
    """A run of three epochs, the second the best, and what it printed."""
    aps = iter([0.25, 0.5, 0.375])
    monkeypatch.setattr(evaluation, "evaluate_weights", lambda run: next(aps))
    output = tmp_path / "output"
    flags = ("--coco_path", coco_path, "--output_path", output, *TINY, "--workers", 0, "--batch_size", 4)
    run = script("train", *flags, "--epochs", 3, "--eval_every", 1)
    assert run.code == 0, run.err
    return output, run.out


def test_a_training_ends_with_its_best(script, coco_path, trained):
    output, out = trained
    (line,) = [line for line in out.splitlines() if line.startswith("Best: ")]
    assert line.startswith("Best: AP 0.500 after epoch 2 of 3. Evaluate it: python test.py --coco_path ")
    assert read_evaluations(output) == {1: 0.25, 2: 0.5, 3: 0.375}
    words = line.split("python test.py ")[1].split()
    run = script("test", *words, "--device", "cpu", "--results_path", output / "rows.json", "--num_draws", 0)
    assert run.code == 0, run.err
    assert "Hint" not in run.out


def test_a_checkpoint_holds_the_threshold_just_below_the_best_score(script, coco_path, tmp_path, monkeypatch):
    """In float32, as the network's scores are."""

    def objects(network, dataset, *_, **__):
        val = dataset.annotations
        scores = np.linspace(0.7, 0.4, len(val.labels)).astype(np.float32).astype(float)
        images = np.repeat(np.arange(len(val.image_ids)), np.diff(val.first))
        return Found(images, val.labels, scores, val.boxes)

    monkeypatch.setattr(evaluation, "detect_all", objects)
    flags = ("--coco_path", coco_path, "--output_path", tmp_path, *TINY, "--workers", 0, "--epochs", 1)
    assert script("train", *flags).code == 0
    threshold = load_checkpoint(tmp_path / "best.pt").score_threshold
    assert threshold == float(np.nextafter(np.float32(0.4), np.float32(0)))


def test_a_worse_checkpoint_gets_a_hint_to_the_better_one(script, coco_path, trained):
    output, _ = trained
    flags = ("--coco_path", coco_path, "--set_name", "val", "--device", "cpu", "--num_draws", 0)
    checkpoint = ("--checkpoint_path", output / "model_final.pt", "--results_path", output / "rows.json")
    run = script("test", *flags, *checkpoint)
    assert run.out.splitlines()[-1] == (
        f"Hint: {output / 'best.pt'} was better on the run's val set: AP 0.500 after epoch 2, 0.375 after epoch 3. "
        f"Use --checkpoint_path {output / 'best.pt'}"
    )
    assert better_checkpoint(output / "retinanet_epoch2.pt", 2) is None
    (output / "best.pt").unlink()
    assert better_checkpoint(output / "model_final.pt", 3) is None


def test_without_objects_to_evaluate_on_the_best_weights_are_the_newest(script, coco_path, tmp_path):
    change_json(coco_path / "val.json", lambda content: content["annotations"].clear())
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *TINY, "--workers", 0, "--eval_every", 1)
    for epochs in (2, 3):  # the second goes on with the first
        run = script("train", *flags, "--epochs", epochs, "--resume")
        assert run.code == 0, run.err
        assert load_checkpoint(tmp_path / "output" / "best.pt").epoch == epochs
        assert "Best: " not in run.out


@pytest.mark.parametrize("content", ["", "[1", "[]", '{"ap_by_epoch": 7}', '{"ap_by_epoch": {"x": 1}}', "{}"])
def test_a_record_that_says_nothing(tmp_path, content):
    assert read_evaluations(tmp_path) == {}
    (tmp_path / "run.json").write_text(content)
    assert read_evaluations(tmp_path) == {}


def test_the_rest_of_the_record_stays(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"depth": 18}}))
    write_evaluations(tmp_path, {10: 0.5})
    assert json.loads((tmp_path / "run.json").read_text()) == {"settings": {"depth": 18}, "ap_by_epoch": {"10": 0.5}}


@pytest.fixture
def patient(script, coco_path, tmp_path, monkeypatch):
    """Trains up to 6 epochs, evaluated after each with these AP; further arguments are flags."""
    aps = [0.25, 0.5, 0.375, 0.5, 0.125, 0.625]
    monkeypatch.setattr(evaluation, "evaluate_weights", lambda run: aps[run.state.epoch - 1])
    flags = ("--coco_path", coco_path, *TINY, "--workers", 0, "--batch_size", 4, "--epochs", 6, "--eval_every", 1)
    return lambda name, *more: script("train", *flags, "--output_path", tmp_path / name, *more)


def losses_of(run):
    assert run.code == 0, run.err
    return json.loads(run.out.splitlines()[-1])


def test_patience_ends_a_run_and_resuming_without_it_gives_equal_numbers(patient, tmp_path):
    whole = losses_of(patient("whole"))
    run = patient("early", "--patience", 2)
    assert "Stopped early after epoch 4: 2 evaluations without a higher AP (--patience)" in run.out
    assert losses_of(run) == whole[:4]
    assert (tmp_path / "early" / "model_final.pt").exists()
    again = patient("early", "--patience", 2, "--resume")
    assert "Stopped early after epoch 4" in again.out
    assert losses_of(again) == whole[:4]
    assert losses_of(patient("early", "--resume")) == whole
    assert read_evaluations(tmp_path / "early") == read_evaluations(tmp_path / "whole")


def test_patience_waits_for_the_end_of_an_epoch_in_which_a_run_was_stopped(patient, tmp_path):
    whole = losses_of(patient("whole"))

    def stop_within_epoch_5(batch):
        if batch == 4 * 2 + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with before_each_batch(stop_within_epoch_5):
        assert patient("early").code == 143
    run = patient("early", "--patience", 2, "--resume")
    assert "after 4 epochs and 1 iterations" in run.out
    assert "Stopped early after epoch 5" in run.out
    assert losses_of(run) == whole[:5]


def test_patience_that_lasts_changes_nothing(patient):
    run = patient("late", "--patience", 4)
    assert "Stopped early" not in run.out
    assert len(losses_of(run)) == 6


def test_patience_needs_objects_to_evaluate_on(patient, coco_path):
    change_json(coco_path / "val.json", lambda content: content["annotations"].clear())
    run = patient("none", "--patience", 2)
    assert run.code == 2
    assert "--patience needs an AP, and the set val has no objects. Remove the flag" in run.err


@pytest.mark.parametrize(
    ("aps", "since"),
    [
        ({}, 0),
        ({3: 0.1}, 0),
        ({1: 0, 2: 0.1}, 0),
        ({1: 0.5, 2: 0.25, 3: 0.5}, 2),  # an equal one is no better
        ({10: 0.1, 9: 0.3, 11: 0.2}, 2),  # in whatever order they were saved
    ],
)
def test_evaluations_since_the_best(aps, since):
    assert evaluations_since_best(aps) == since


def test_an_ap_near_zero_is_explained_once(script, coco_path, tmp_path):
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "run", *TINY, "--workers", 0, "--eval_every", 1)
    run = script("train", *flags, "--epochs", 2, "--learning_rate", 2e-7)
    assert run.code == 0, run.err
    (line,) = [line for line in run.out.splitlines() if "AP is below" in line]
    assert re.match(
        r"Note: AP is below 0\.01 after epoch 1: learning rate 2e-07, \d+% of the steps clipped, \d+\.\d% of the "
        r"objects without an anchor, \d+ detections? in 5 val images(, with scores up to 0\.\d{3} \(median "
        r"0\.\d{3}\))?\. This is common in the first epochs\. If it persists, check whether the data can be learned: ",
        line,
    ), line
    command = f"python -m retinanet.check_data --coco_path {coco_path} --sets train val --min_side "
    assert f"learned: {command}" in line
    assert line.endswith(" --prove --weights none")
    assert "AP is below" not in script("train", *flags, "--epochs", 3, "--learning_rate", 2e-7, "--resume").out


def test_a_higher_ap_needs_no_explanation(script, coco_path, tmp_path, monkeypatch):
    def objects(network, dataset, *_, **__):
        val = dataset.annotations
        images = np.repeat(np.arange(len(val.image_ids)), np.diff(val.first))
        return Found(images, val.labels, np.full(len(images), 0.5), val.boxes)

    monkeypatch.setattr(evaluation, "detect_all", objects)
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path, *TINY, "--workers", 0, "--epochs", 1)
    assert run.code == 0, run.err
    assert "AP is below" not in run.out

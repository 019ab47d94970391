"""run.json says how a run started and ended, and --from_run repeats the run."""

import json
import os
import platform
import signal
from datetime import datetime

import pytest
import torch
from support.accidents import before_each_batch
from support.scripts import TINY

from retinanet.coco.annotation_cache import load_annotations
from retinanet.runtime.errors import Diverged, Stopped, UserError
from retinanet.training import evaluation
from retinanet.training.saves import end_by

pytestmark = pytest.mark.usefixtures("narrow_network")

SHORT = (*TINY, "--epochs", 2, "--eval_every", 1, "--batch_size", 3, "--learning_rate", 0.001, "--workers", 0)


@pytest.fixture
def train(script, coco_path, tmp_path):
    """Runs train.py into a folder; further arguments are flags."""
    return lambda name, *more: script(
        "train", *SHORT, "--coco_path", coco_path, "--output_path", tmp_path / name, *more
    )


@pytest.fixture
def record_of(tmp_path):
    return lambda name: json.loads((tmp_path / name / "run.json").read_text())


def test_a_run_is_repeated_from_its_record(script, train, record_of, coco_path, tmp_path):
    first = train("first", "--anchor_scale", 2)
    coco_path.rename(tmp_path / "moved")
    given = ("--coco_path", tmp_path / "moved", "--output_path", tmp_path / "second", "--device", "cpu", "--workers", 0)
    second = script("train", "--from_run", tmp_path / "first", *given)
    assert second.code == 0, second.err
    assert second.out.splitlines()[-1] == first.out.splitlines()[-1]
    models = [torch.load(tmp_path / name / "model_final.pt")["model"] for name in ("first", "second")]
    assert all(map(torch.equal, models[0].values(), models[1].values()))
    line = f"Settings from {tmp_path / 'first'}, except for --coco_path --output_path --device --workers"
    assert line in second.out.splitlines()
    assert record_of("second")["settings"]["from_run"] == str(tmp_path / "first")
    again = script("train", "--from_run", tmp_path / "second", *given, "--resume")  # a repeated run can be repeated
    assert (again.code, "Resumed from" in again.out) == (0, True)


def test_the_record_names_data_machine_and_times(train, record_of, coco_path):
    before = datetime.now().astimezone().replace(microsecond=0)
    train("output")
    record = record_of("output")
    for name in ("train", "val"):
        path = coco_path / f"{name}.json"
        assert record["data"][name] == {"file": str(path), "sha256": load_annotations(path).fingerprint}
    assert record["host"] == platform.node()
    assert record["devices"] == [record["device"]] == [platform.machine()]
    start, end = (datetime.fromisoformat(record[name]) for name in ("start_time", "end_time"))
    assert before <= start <= end <= datetime.now().astimezone()
    assert record["ended"] == "finished"
    assert {
        "command",
        "settings",
        "class_names",
        "git_commit",
        "uncommitted",
        "versions",
        "ap_by_epoch",
    } <= record.keys()


def test_a_stopped_run_says_so_and_a_resumed_one_keeps_it(train, record_of):
    def stop_in_two(batch):
        if batch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with before_each_batch(stop_in_two):
        assert train("output").code == 143
    stopped = record_of("output")
    assert (stopped["ended"], "end_time" in stopped) == ("stopped by SIGTERM", True)
    assert train("output", "--resume").code == 0
    assert record_of("output")["ended"] == "finished"
    assert record_of("output")["started"] == stopped


def test_a_run_out_of_patience_and_one_that_fails_say_so(train, record_of, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate_weights", lambda run: 0.5)
    train("early", "--patience", 1, "--epochs", 4)
    assert record_of("early")["ended"] == "out of patience"
    monkeypatch.setattr(evaluation, "evaluate_weights", lambda run: (_ for _ in ()).throw(UserError("no.png: broken")))
    assert train("failed").code == 2
    assert record_of("failed")["ended"] == "failed: no.png: broken"


def test_the_words_for_other_ends():
    assert end_by(Stopped(signal.SIGUSR1)) == "stopped by SIGUSR1"
    assert end_by(Diverged("the loss is NaN")) == "diverged: the loss is NaN"
    assert end_by(AssertionError()) == "failed: AssertionError"

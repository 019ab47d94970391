"""Trackers of --track receive the numbers, read back from their files, and never stop a run."""

import importlib.util
import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from support.scripts import TINY

from retinanet.runtime.errors import Diverged, Stopped
from retinanet.training.trackers import TrackedRun, Trackers, open_trackers

pytestmark = pytest.mark.usefixtures("narrow_network")
FLAGS = (*TINY, "--batch_size", 2, "--log_every", 1, "--workers", 0, "--eval_every", 1, "--device", "cpu")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("WANDB_MODE", "offline")


def logged(log: str) -> dict[int, float]:
    """The classification loss of each step in a log of epochs with 4 steps."""
    lines = re.findall(r"Epoch: (\d+) \| Iteration: (\d+) \| Classification loss: ([\d.]+)", log)
    return {int(epoch) * 4 + int(iteration): float(loss) for epoch, iteration, loss in lines}


def test_numbers_in_tensorboard_are_the_logs_and_a_resumed_run_doubles_none(script, coco_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how = ("--coco_path", coco_path, *FLAGS, "--track", "tensorboard", "--resume")
    first = script("train", *how, "--epochs", 2)
    second = script("train", *how, "--epochs", 3)

    assert (first.code, second.code, first.err, second.err) == (0, 0, "", "")
    events = EventAccumulator("output/tensorboard", {"scalars": 0, "images": 0})
    events.Reload()
    losses = events.Scalars("train/classification loss")
    wanted = logged(first.out) | logged(second.out)
    assert [event.step for event in losses] == sorted(wanted) == list(range(1, 13))
    assert [event.value for event in losses] == pytest.approx([wanted[step] for step in range(1, 13)], abs=1e-5)
    names = set(events.Tags()["scalars"])
    assert {"train/learning rate", "train/gradient norm", "train/clipped steps", "train/memory in GB"} <= names
    assert {"val/AP", "val/AP50", "val/AP of red"} & names
    assert [event.step for event in events.Scalars("train/gradient norm")] == list(range(1, 13))
    assert "precision_recall" in events.Tags()["images"]


def test_a_run_out_of_patience_has_a_report_and_its_charts(script, coco_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how = ("--coco_path", coco_path, *FLAGS, "--track", "tensorboard", "--learning_rate", 1e-12)
    run = script("train", *how, "--epochs", 5, "--patience", 1)

    assert (run.code, "Stopped early after epoch 2" in run.out) == (0, True)
    assert Path("output/report/report.html").exists()
    events = EventAccumulator("output/tensorboard", {"images": 0})
    events.Reload()
    assert "precision_recall" in events.Tags()["images"]


def test_numbers_in_mlflow(script, coco_path):
    mlflow = pytest.importorskip("mlflow")
    how = ("--coco_path", coco_path, *FLAGS, "--track", "mlflow", "--resume")
    first = script("train", *how, "--epochs", 1)
    second = script("train", *how, "--epochs", 2)

    assert (first.code, second.code) == (0, 0)
    client = mlflow.MlflowClient()
    run_id = json.loads(Path("output/trackers.json").read_text())["mlflow"]
    history = client.get_metric_history(run_id, "train/classification loss")
    wanted = logged(first.out) | logged(second.out)
    assert [one.step for one in history] == list(range(1, 9))
    assert [one.value for one in history] == pytest.approx([wanted[step] for step in range(1, 9)], abs=1e-5)
    run = client.get_run(run_id)
    assert run.data.params["learning_rate"] == "0.0001"
    assert run.info.status == "FINISHED"
    assert "confusion.png" in {one.path for one in client.list_artifacts(run_id)}


def test_a_resumed_run_logs_in_mlflow_what_its_last_step_lacks(tmp_path):
    """Such as an evaluation that was stopped: it has the step of the last line of losses."""
    mlflow = pytest.importorskip("mlflow")
    for step, numbers in ((0, {"loss": 1.0}), (4, {"loss": 2.0, "val/AP": 0.5})):
        with open_trackers(("mlflow",), TrackedRun(tmp_path, "x", {}, step)) as trackers:
            trackers.log(4, numbers)
    run_id = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    histories = [mlflow.MlflowClient().get_metric_history(run_id, name) for name in ("loss", "val/AP")]
    assert [[(one.step, one.value) for one in history] for history in histories] == [[(4, 1.0)], [(4, 0.5)]]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Diverged("too many steps"), "FAILED"),
        (ZeroDivisionError(), "FAILED"),
        (Stopped(signal.SIGTERM), "KILLED"),
    ],
)
def test_mlflow_knows_how_a_run_ended(tmp_path, error, status):
    mlflow = pytest.importorskip("mlflow")
    with pytest.raises(type(error)), open_trackers(("mlflow",), TrackedRun(tmp_path, "x", {}, 0)):
        raise error
    run_id = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    assert mlflow.MlflowClient().get_run(run_id).info.status == status


def test_numbers_in_wandb_offline_and_a_resumed_run_is_the_same_run(script, coco_path):
    pytest.importorskip("wandb")
    how = ("--coco_path", coco_path, *FLAGS, "--track", "wandb", "--resume")
    first = script("train", *how, "--epochs", 1)
    second = script("train", *how, "--epochs", 2)

    assert (first.code, second.code) == (0, 0)
    assert "--track wandb failed" not in first.err + second.err
    name = "train/classification loss"
    ids, losses = set(), []
    for path in sorted(Path("output/wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(path):
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            losses += [(row["_step"], row[name])] if name in row else []
            ids |= {record.run.run_id} - {""}
    wanted = logged(first.out) | logged(second.out)
    assert [step for step, _ in losses] == list(range(1, 9))
    assert dict(losses) == pytest.approx(wanted, abs=1e-5)
    assert ids == {json.loads(Path("output/trackers.json").read_text())["wandb"]}


def wandb_records(path: Path) -> list:
    """The records of a file, once the last is there: W&B's own process may write for a moment after the run's end."""
    from wandb.proto import wandb_internal_pb2

    ends = time.monotonic() + 30
    while True:
        records = []
        for data in leveldb_records(path.read_bytes()[7:]):  # after a header
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < ends, f"{path} has no end"
        time.sleep(0.1)


def test_a_wandb_run_keeps_its_id_even_without_an_answer(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    asked = []

    def init(**how):
        asked.append(how)
        raise TimeoutError("no answer yet")  # W&B may have made the run all the same

    monkeypatch.setattr(wandb, "init", init)
    for step in (0, 4, 0):
        open_trackers(("wandb",), TrackedRun(tmp_path, "x", {}, step))
    ids = [how["id"] for how in asked]
    assert ids[0] == ids[1] != ids[2]
    assert {how["resume"] for how in asked} == {"allow"}


def leveldb_records(content: bytes) -> list[bytes]:
    """The records of a LevelDB log: blocks of 32 KiB, in them parts with a checksum, a length and a kind."""
    records, place = [b""], 7
    content = bytes(7) + content  # blocks count from the header
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # no room for another part
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        records[-1] += content[place + 7 : place + 7 + length]
        if kind in (1, 4):  # whole, or the last part
            records.append(b"")
        place += 7 + length
    return records[:-1]


def test_a_missing_library_is_named_before_the_training(script, coco_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)

    run = script("train", "--coco_path", coco_path, *FLAGS, "--epochs", 1, "--track", "wandb")

    assert run.code == 2
    assert "--track wandb: wandb is not installed. Install it with: pip install wandb" in run.err
    assert not Path("output").exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("mlruns", "mlflow can't keep runs at mlruns. Newer versions of mlflow write to a folder only with"),
        ("file:mlruns", "MLFLOW_ALLOW_FILE_STORE=true. Set that, or MLFLOW_TRACKING_URI to a server or a database"),
        ("sqlite:///runs.db", "mlflow-skinny has no databases: pip install mlflow, or set"),
        ("nowhere://x", "mlflow can't keep runs at nowhere://x. It says: "),
    ],
)
def test_a_place_that_mlflow_can_not_use_is_named_before_the_training(script, coco_path, monkeypatch, place, words):
    pytest.importorskip("mlflow")
    if place.startswith("sqlite") and importlib.util.find_spec("sqlalchemy"):
        pytest.skip("with the whole of mlflow a database works")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)

    run = script("train", "--coco_path", coco_path, *FLAGS, "--epochs", 1, "--track", "mlflow")

    assert run.code == 2
    assert words in run.err
    assert not Path("output").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--track", "comet"), "--track"),
        (("--track", "wandb", "wandb"), "a tracker is listed twice"),
        (("--track", "wandb", "--find_lr"), "--find_lr doesn't save a run, so --track has no effect. Remove --track"),
    ],
)
def test_mistakes(script, coco_path, flags, message):
    run = script("train", "--coco_path", coco_path, *FLAGS, *flags)

    assert run.code == 2
    assert message in run.err


class Failing:
    """Works for some calls, then fails."""

    def __init__(self, calls: int) -> None:
        self.calls, self.steps = calls, []

    def log(self, step, numbers):
        if len(self.steps) == self.calls:
            raise OSError("no route to host")
        self.steps.append((step, numbers))

    def picture(self, name, path):
        raise ValueError

    def close(self, exit_code):
        self.steps.append("closed")


def test_a_failing_tracker_is_named_once_and_left_out(capsys):
    good, bad = Failing(9), Failing(1)
    both = Trackers({"tensorboard": good, "wandb": bad})

    for step in (1, 2, 3):
        both.log(step, {"loss": 0.5, "AP of cat": float("nan")})
    both.close()

    assert good.steps == [(1, {"loss": 0.5}), (2, {"loss": 0.5}), (3, {"loss": 0.5}), "closed"]
    assert bad.steps == [(1, {"loss": 0.5})]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("train.py: --track wandb failed and is off from here on (OSError: no route to host).")


def test_one_that_fails_at_the_start(monkeypatch, capsys, tmp_path):
    wandb = pytest.importorskip("wandb")

    def init(**how):
        raise RuntimeError("no login")

    monkeypatch.setattr(wandb, "init", init)

    open_trackers(("wandb",), TrackedRun(tmp_path, "x", {}, 0)).log(1, {"loss": 1.0})

    assert capsys.readouterr().err.count("no login") == 1

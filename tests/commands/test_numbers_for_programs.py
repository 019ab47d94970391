"""test.py gives programs what they need: --json, --min_ap, --quiet, and a record of what made a result file."""

import json
import re

import pytest
from support.built import small_network
from support.data_folder import change_json

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint

TEST = ("--device", "cpu", "--workers", 0, "--num_draws", 0, "--set_name", "val")
TIMED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*")


@pytest.fixture
def folder(coco_path, tmp_path, monkeypatch):
    """In a folder with data/, output/model_final.pt of a random network, and perfect.json, all objects of val."""
    monkeypatch.chdir(tmp_path)
    model = small_network(random_outputs=True)
    for learning_rate in (0.001, 0.002):
        settings = {"learning_rate": learning_rate, "seed": 1, "depth": 18, "epochs": 7, "output_path": "output"}
        checkpoint = Checkpoint(
            model.state_dict(), model.architecture, ["red", "green"], [1, 2], 64, 96, 4, 7, settings
        )
        path = tmp_path / "output" / ("model_final.pt" if learning_rate == 0.001 else "other.pt")
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(checkpoint, path)
    content = json.loads((coco_path / "val.json").read_text())
    rows = [
        {"score": 0.9, **{name: one[name] for name in ("image_id", "category_id", "bbox")}}
        for one in content["annotations"]
    ]
    (tmp_path / "perfect.json").write_text(json.dumps(rows))
    (tmp_path / "halved.json").write_text(json.dumps(rows[::2]))
    return tmp_path


def test_the_numbers_are_the_reports_and_say_what_was_evaluated(script, folder):
    run = script("test", *TEST, "--json", "numbers/new.json", "--report", "report", "--max_detections", 5)
    assert run.code == 0, run.err
    assert run.out.splitlines()[-1] == "Numbers: numbers/new.json"
    numbers = json.loads((folder / "numbers" / "new.json").read_text())
    assert numbers == json.loads((folder / "report" / "metrics.json").read_text())
    assert (numbers["checkpoint"], numbers["epoch"]) == ("output/model_final.pt", 7)
    assert numbers["settings"]["learning_rate"] == 0.001
    tested = numbers["test_settings"]
    assert [tested[name] for name in ("max_detections", "min_side", "batch_size", "set_name")] == [5, 64, 4, "val"]
    again = script("test", "--from_results", "val_bbox_results.json", "--num_draws", 0, "--json", "again.json")
    assert again.code == 0, again.err
    assert json.loads((folder / "again.json").read_text()) == numbers


def test_each_image_has_its_counts(script, folder):
    assert script("test", "--from_results", "halved.json", "--num_draws", 0, "--json", "n.json").code == 0
    numbers = json.loads((folder / "n.json").read_text())
    assert numbers["checkpoint"] is numbers["settings"] is None
    images = numbers["images"]
    assert [image["file_name"] for image in images] == [f"{number}.png" for number in range(1, 6)]
    assert [image["true_positives"] for image in images] == [1, 0, 1, 0, 0]
    assert [image["misses"] for image in images] == [0, 1, 0, 1, 0]
    assert [image["f1"] for image in images] == [1, 0, 1, 0, 1]  # the last has no object
    assert [image["false_positives"] for image in images] == [0] * 5


def test_below_the_least_ap_the_exit_code_is_one(script, folder):
    flags = ("--from_results", "halved.json", "--num_draws", 0, "--json", "n.json")
    run = script("test", *flags, "--min_ap", 0.9)
    ap = json.loads((folder / "n.json").read_text())["coco"]["AP"]
    assert 0 < ap < 0.9
    assert (run.code, run.err) == (1, f"test.py: AP {ap:.6g} is below --min_ap 0.9\n")
    assert script("test", *flags, "--min_ap", ap).code == 0
    assert script("test", *TEST, "--min_ap", 1, "--log_dir", "log").code == 1
    assert (folder / "val_bbox_results.json").exists()
    (log,) = (folder / "log").iterdir()
    assert log.read_text().splitlines()[-1].endswith("is below --min_ap 1")


@pytest.mark.parametrize("source", [("--from_results", "perfect.json"), TEST])
@pytest.mark.parametrize("flag", [("--min_ap", 0), ("--json", "n.json")])
def test_a_set_without_objects_has_no_ap(script, folder, source, flag):
    change_json(folder / "data" / "val.json", lambda content: content["annotations"].clear())
    run = script("test", *source, *flag)
    assert (run.code, run.out) == (2, "")
    assert (
        f"{flag[0]} needs an AP, and data/val.json has no objects. Remove the flag, or choose another --set_name"
        in run.err
    )
    assert not (folder / "n.json").exists()
    assert not (folder / "val_bbox_results.json").exists()


@pytest.mark.parametrize(
    "flags",
    [TEST, ("--from_results", "perfect.json"), ("--compare", "halved.json", "perfect.json", "--json", "n.json")],
)
def test_a_quiet_command_prints_only_errors(script, folder, flags):
    run = script("test", *flags, "--quiet")
    assert run == (0, "", "")
    failing = script("test", *flags, "--quiet", "--coco_path", "nowhere")
    assert (failing.code, failing.out, "nowhere" in failing.err) == (2, "", True)


def test_a_quiet_command_writes_its_log(script, folder):
    loud = script("test", *TEST)
    assert script("test", *TEST, "--quiet", "--log_dir", "log", "--log_time").out == ""
    (log,) = (folder / "log").iterdir()
    lines = log.read_text().splitlines()
    assert all(map(TIMED.fullmatch, lines))
    assert [line[20:] for line in lines if "Log: " not in line] == loud.out.splitlines()


def test_the_comparison_has_numbers_too(script, folder):
    run = script("test", "--compare", "halved.json", "perfect.json", "--json", "n.json")
    assert run.code == 0, run.err
    assert not (folder / "compare.png").exists()  # no picture without --report
    numbers = json.loads((folder / "n.json").read_text())
    ap = numbers["differences"][0]
    assert (ap["name"], ap["b"]) == ("AP", pytest.approx(1))
    assert ap["difference"]["value"] == pytest.approx(ap["b"] - ap["a"])
    assert (numbers["a"]["results"], numbers["b"]["results"]) == ("halved.json", "perfect.json")
    assert [image["f1_b"] - image["f1_a"] for image in numbers["images"]] == [0, 1, 0, 1, 0]
    assert numbers["settings_that_differ"] is None


def test_a_comparison_lists_the_settings_that_differ(script, folder):
    assert script("test", *TEST, "--results_path", "a.json").code == 0
    other = ("--checkpoint_path", "output/other.pt", "--results_path", "b.json", "--flip_test", "--exif", "upright")
    assert script("test", *TEST, *other).code == 0
    run = script("test", "--compare", "a.json", "b.json", "--num_draws", 0, "--json", "n.json")
    lines = [re.split("  +", line) for line in run.out.splitlines()]
    first = lines.index(["Settings that differ", "A", "B"])
    assert lines[first + 1 : first + 5] == [
        ["checkpoint", "output/model_final.pt", "output/other.pt"],
        ["--learning_rate", "0.001", "0.002"],
        ["test.py --exif", "raw", "upright"],
        ["test.py --flip_test", "False", "True"],
    ]
    differing = json.loads((folder / "n.json").read_text())["settings_that_differ"]
    assert {"name": "--learning_rate", "a": 0.001, "b": 0.002} in differing
    assert len(differing) == 4
    same = script("test", "--compare", "a.json", "a.json", "--num_draws", 0)
    assert "Settings that differ: none" in same.out.splitlines()
    (folder / "b.json").write_text((folder / "b.json").read_text() + " ")
    (folder / "a.run.json").unlink()
    unknown = script("test", "--compare", "a.json", "b.json", "--num_draws", 0)
    line = "Settings that differ: unknown, as there is no a.run.json; b.run.json belongs to another version of b.json"
    assert line in unknown.out.splitlines()


def test_a_record_is_read_without_trust(script, folder):
    assert script("test", *TEST, "--results_path", "a.json").code == 0
    assert script("test", *TEST, "--results_path", "b.json").code == 0
    record = json.loads((folder / "a.run.json").read_text())

    def compared(**settings):
        (folder / "a.run.json").write_text(json.dumps(record | {"settings": settings}))
        run = script("test", "--compare", "a.json", "b.json", "--num_draws", 0, "--json", "n.json")
        assert run.code == 0, run.err
        return run.out, json.loads((folder / "n.json").read_text())

    out, numbers = compared(**{"\x1b[2J\n--epochs": 1}, seed="x" * 10**5, alpha=float("nan"))
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) < 500
    assert numbers["a"]["settings"]["alpha"] is None
    for broken in ({"deep": {"er": 1}}, {"deep": [[1]]}, {"letter": "\ud800"}):
        assert "a.run.json is not the record of a result file" in compared(**broken)[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--from_results", "perfect.json", "--json", "perfect.json"), "--json perfect.json: is a result file or the"),
        (("--compare", "halved.json", "perfect.json", "--json", "halved.json"), "--json halved.json: is a result file"),
        ((*TEST, "--json", "./val_bbox_results.json"), "is a result file or the checkpoint"),
        (("--from_results", "perfect.json", "--json", "data/val.json"), "--json data/val.json: is the annotation file"),
        ((*TEST, "--results_path", "data/val.json"), "--results_path data/val.json: is the annotation file of the set"),
        ((*TEST, "--results_path", "rows.zip"), "--results_path rows.zip: the file is written as plain JSON"),
        ((*TEST, "--results_path", "best.pt"), "--results_path best.pt: has the name of a checkpoint or an exported"),
        (("--from_results", "perfect.json", "--json", "data"), "data: is a folder"),
        (("--from_results", "perfect.json", "--json", "perfect.json/n.json"), "perfect.json is not a writable folder"),
        (("--from_results", "perfect.json", "--min_ap", 1.5), "expected a number from 0 to 1"),
        (("--compare", "halved.json", "perfect.json", "--min_ap", 0.5), "--min_ap evaluates one result file"),
    ],
)
def test_mistakes(script, folder, flags, words):
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    run = script("test", *flags)
    assert (run.code, run.out) == (2, "")
    assert words in run.err
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def test_a_timed_log_of_a_run_draws_the_same_curves(script, folder, coco_path):
    flags = ("--coco_path", coco_path, "--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64)
    flags = (*flags, "--max_side", 64, "--epochs", 1, "--device", "cpu", "--workers", 0, "--log_every", 1)
    run = script("train", *flags, "--output_path", "timed", "--log_dir", "log", "--log_time")
    assert run.code == 0, run.err
    assert all(map(TIMED.fullmatch, run.out.splitlines()))
    (log,) = (folder / "log").iterdir()
    assert log.read_text() == run.out
    tables = []
    for text in (run.out, "".join(line[20:] + "\n" for line in run.out.splitlines())):
        log.write_text(text)
        tables.append(script("vis", "--logs", log, "--picture_path", "curves.png").out)
    assert tables[0] == tables[1]
    assert "| 1 " in tables[0]

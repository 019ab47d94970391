"""check_labels trains the folds' detectors, resumes them after a stop, and lists suspects of the right set."""

import json
import os
import shutil
import signal

import pytest
from support.accidents import before_each_batch
from support.data_folder import change_json, write_set
from support.scripts import TINY

from retinanet.coco.annotation_cache import load_annotations
from retinanet.settings.check_labels import check_labels_settings
from retinanet.settings.train import train_settings

pytestmark = pytest.mark.usefixtures("narrow_network")

COMMAND = "retinanet/check_labels/__main__"
FLAGS = (*TINY, "--folds", 2, "--epochs", 2, "--batch_size", 2, "--workers", 0, "--log_every", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with a train set only."""
    folder = tmp_path_factory.mktemp("set") / "data"
    write_set(folder, "train", 9)
    return folder


def weights_of(output):
    return [(output / f"fold_{fold}" / "model_final.pt").read_bytes() for fold in (1, 2)]


def test_folds_are_trained_resumed_after_a_stop_and_checked(script, folder, tmp_path):
    def stop_in_six(batch):
        if batch == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path / "out"
    words = ("--coco_path", folder, "--output_path", output, *FLAGS)
    with before_each_batch(stop_in_six):
        first = script(COMMAND, *words)
    assert first.code == 143
    assert f"Stopped by SIGTERM: {output}/fold_2/last.pt is saved" in first.out
    assert not (output / "label_suspects.json").exists()
    again = script(COMMAND, *words)
    assert (again.code, again.err) == (0, "")
    assert f"Resumed from {output}/fold_1 after 2 epochs and 0 iterations" in again.out
    assert f"Resumed from {output}/fold_2 after 0 epochs and 2 iterations" in again.out
    assert "--decisions decisions.json" in again.out
    parts = [load_annotations(output / f"fold_{fold}" / "data" / "val.json").image_ids.tolist() for fold in (1, 2)]
    assert sorted(parts[0] + parts[1]) == [*range(1, 10)]
    content = json.loads((output / "label_suspects.json").read_text())
    assert (content["set_name"], content["annotations"]["file"]) == ("train", str(folder / "train.json"))
    assert {each["image_id"] for each in content["suspects"]} <= set(range(1, 10))
    rows = json.loads((output / "train_bbox_results.json").read_text())
    assert {row["image_id"] for row in rows} <= set(range(1, 10))
    other = tmp_path / "other"
    assert script(COMMAND, "--coco_path", folder, "--output_path", other, *FLAGS).code == 0
    assert json.loads((other / "label_suspects.json").read_text()) == content  # as if it had never been stopped
    from_file = ("--results", output / "train_bbox_results.json", "--output_path", tmp_path / "third")
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("images"))  # it doesn't need them
    ended = script(COMMAND, "--coco_path", tmp_path / "data", *from_file)
    assert (ended.code, ended.err) == (0, "")
    suspects = json.loads((tmp_path / "third" / "label_suspects.json").read_text())["suspects"]
    assert {each["annotation_id"] for each in suspects} - {None} <= set(range(1, 10))
    changed = script(COMMAND, "--coco_path", folder, "--output_path", output, *FLAGS, "--folds", 3)
    assert changed.code == 2
    assert "was written for other annotations, or with another --folds or --group_by" in changed.err


def test_the_folds_runs_have_the_settings_of_train_py_and_other_defaults():
    settings = check_labels_settings(["--min_side", "256", "--max_side", "512"]).training
    strong = train_settings(["--recipe", "strong", "--epochs", "12", "--min_side", "256", "--max_side", "512"])
    assert settings.optimisation.epochs == 12
    assert settings.data.augmentation == strong.data.augmentation
    assert settings.optimisation.backbone_rate == strong.optimisation.backbone_rate
    assert settings.loss == strong.loss
    assert check_labels_settings(["--recipe", "published"]).training.loss == train_settings([]).loss


def test_a_repeated_run_lends_the_folds_no_patience(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"patience": 2, "depth": 18}}))
    settings = check_labels_settings(["--from_run", str(tmp_path)]).training
    assert (settings.network.depth, settings.output.patience) == (18, 0)


def test_what_weakens_the_check_is_said(script, folder, tmp_path):
    how = ("--coco_path", folder, *TINY, "--workers", 0, "--epochs", 1, "--batch_size", 2)
    assert script("train", *how, "--val_set", "train", "--output_path", tmp_path / "run").code == 0
    weights = ("--weights", tmp_path / "run" / "best.pt", "--norm_statistics", "frozen")
    run = script(COMMAND, *how, *weights, "--tile", 64, "--folds", 2, "--output_path", tmp_path / "out")
    assert run.code == 0
    assert (
        "best.pt: its detector was trained on this set, so the folds' detectors repeat the mistakes"
        in run.out + run.err
    )
    assert "--tile applies to the folds' training only." in run.out + run.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folds", 1), "expected a whole number, 2 or more"),
        (("--folds", 9999), "--folds 9999 needs as many groups of images, but the set of 9 images has only 9"),
        (("--group_by", "clip"), "--group_by clip: does not match 1.png"),
        (("--val_set", "test"), "--val_set names a set to evaluate on"),
        (("--seeds", 1, 2), "--seeds trains several runs, but each fold has only one"),
        (("--patience", 2), "--patience would end the folds' runs at different times"),
        (("--find_lr",), "--find_lr replaces the training"),
        (("--train_set", "nowhere"), "nowhere.json: no such annotation file"),
    ],
)
def test_mistakes_end_in_one_message_and_write_nothing(script, folder, tmp_path, words, message):
    ended = script(COMMAND, "--coco_path", folder, "--output_path", tmp_path / "out", *TINY, "--workers", 0, *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x.json", "--folds", 2), "--folds is for training, which --results replaces"),
        (("x.json", "--epochs", 3), "--epochs is for training, which --results replaces"),
        (("nowhere.json",), "nowhere.json: no such file"),
        (("nothing.json",), "nothing.json: has no detections"),
    ],
)
def test_mistakes_in_results_end_in_one_message(script, folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing.json").write_text("[]")
    ended = script(COMMAND, "--coco_path", folder, "--output_path", tmp_path / "out", "--results", *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"annotations": []}, "has no objects to check. Choose another --train_set"),
        (
            lambda content: content | {"images": content["images"][:1], "annotations": content["annotations"][:1]},
            "the set of 1 image has only 1",
        ),
    ],
)
def test_sets_that_cannot_be_checked(script, coco_path, tmp_path, change, message):
    change_json(coco_path / "train.json", change)
    ended = script(COMMAND, "--coco_path", coco_path, "--output_path", tmp_path / "out", *TINY, "--workers", 0)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "more"), [((), ""), (("--exif", "raw"), " --exif raw")])
def test_the_command_that_applies_decisions_reads_the_boxes_in_the_same_way(script, coco_path, tmp_path, words, more):
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    words = ("--results", tmp_path / "rows.json", "--output_path", tmp_path / "out", *words)
    ended = script(COMMAND, "--coco_path", coco_path, *words)
    assert f" --output_path {coco_path}_fixed{more}\n" in ended.out


def test_the_command_that_applies_decisions_reads_a_set_of_any_name(script, coco_path, tmp_path):
    (coco_path / "train.json").rename(coco_path / "mine.json")
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    words = ("--results", tmp_path / "rows.json", "--output_path", tmp_path / "out", "--train_set", "mine")
    ended = script(COMMAND, "--coco_path", coco_path, *words)
    command = f"retinanet.convert {coco_path}/mine.json --decisions decisions.json --output_path {coco_path}_fixed"
    assert f"  python -m {command}\n" in ended.out


def test_results_of_another_set_are_refused(script, coco_path, tmp_path):
    rows = [{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    ended = script(
        COMMAND, "--coco_path", coco_path, "--results", tmp_path / "rows.json", "--output_path", tmp_path / "out"
    )
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "rows.json" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_detector_that_has_seen_the_set_is_told(script, coco_path, tmp_path):
    words = (*TINY, "--coco_path", coco_path, "--epochs", 1, "--batch_size", 4, "--workers", 0)
    assert script("train", *words, "--output_path", tmp_path / "run").code == 0
    for name in ("train", "val"):
        results = tmp_path / f"{name}.json"
        words = ("--checkpoint_path", tmp_path / "run" / "model_final.pt", "--threshold", 0, "--device", "cpu")
        words = ("--coco_path", coco_path, "--set_name", name, "--results_path", results, *words, "--workers", 0)
        assert script("test", *words).code == 0
        words = ("--coco_path", coco_path, "--train_set", name, "--results", results, "--output_path", tmp_path / name)
        ended = script(COMMAND, *words)
        assert ended.code == 0
        assert ("its detector was trained on this set" in ended.err) == (name == "train")

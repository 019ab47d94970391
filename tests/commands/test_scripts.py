"""The six scripts print and write what a user expects, and mistakes end in a message."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.data_folder import change_json, write_set
from support.narrow import START, NarrowBackbone
from support.scripts import ROOT, TINY
from support.warm import finished
from torchvision.models import get_model

from retinanet.data.images import read_image
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training import build, compilation

pytestmark = pytest.mark.usefixtures("narrow_network")

SHORT = (*TINY, "--epochs", 2, "--eval_every", 1, "--batch_size", 3, "--learning_rate", 0.001, "--log_every", 2)
LINE = re.compile(
    r"Epoch: (\d+) \| Iteration: (\d+) \| Classification loss: \d+\.\d{5} \| Regression loss: \d+\.\d{5} \| "
    r"Running loss: \d+\.\d{5}( \| [A-Z][\w/ ]*: [^|]+)+"
)
RESUMABLE = {"last.pt", "previous.pt", ".lock"}
TABLE = re.compile(r" Average (Precision|Recall) +\((AP|AR)\) @\[ IoU=.* \| area=.* \| maxDets=.* \] = -?\d\.\d{3}")


def shell(folder, *command):
    """A command in a process of its own, from a working folder of its own."""
    words = [sys.executable, *(str(word) for word in command)]
    narrow = {**environment(), "PYTHONPATH": str(START)}
    return subprocess.run(words, cwd=folder, env=narrow, capture_output=True, text=True, check=False)


def quick_shell(folder, *command):
    """The same without the seconds that importing PyTorch takes."""
    return finished(command, folder=folder, environment=environment(), is_narrow=True)


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def losses_of(log):
    lines = log.splitlines()
    assert lines[-2] == "epoch_loss_list:"
    return ast.literal_eval(lines[-1])


def test_the_six_commands_in_a_row(coco_path, tmp_path):
    train = shell(tmp_path, ROOT / "train.py", "--coco_path", "./data", "--output_path", "./output", *SHORT)
    assert (train.returncode, train.stderr) == (0, "")  # no progress bar where there is no terminal
    lines = train.stdout.splitlines()
    assert "Num training images: 8" in lines
    assert "Objects to learn: 7 of 2 classes; 0 clipped at the image border" in lines
    logged = [(int(found[1]), int(found[2])) for line in lines if (found := LINE.fullmatch(line))]
    assert logged == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert sum(bool(TABLE.fullmatch(line)) for line in lines) == 24
    assert len(losses_of(train.stdout)) == 2
    names = {"retinanet_epoch1.pt", "retinanet_epoch2.pt", "best.pt", "model_final.pt", "run.json"} | RESUMABLE
    assert {path.name for path in (tmp_path / "output").iterdir()} == names

    checkpoint = ("--checkpoint_path", "./output/model_final.pt")
    val = quick_shell(
        tmp_path, ROOT / "test.py", "--coco_path", "./data", *checkpoint, "--depth", 18, "--set_name", "val"
    )
    assert (val.returncode, val.stderr) == (0, "")
    table = [line for line in val.stdout.splitlines() if TABLE.fullmatch(line)]
    assert table == [line for line in lines if TABLE.fullmatch(line)][12:]

    test = ("--coco_path", "./data", *checkpoint, "--depth", 18, "--set_name", "test")
    test = quick_shell(tmp_path, ROOT / "test.py", *test)
    assert (test.returncode, test.stderr) == (0, "")
    rows = json.loads((tmp_path / "test_bbox_results.json").read_text())
    assert {row["category_id"] for row in rows} <= {1, 2}

    vis = shell(tmp_path, ROOT / "vis.py")
    assert (vis.returncode, vis.stderr) == (0, "")
    with Image.open(tmp_path / "vis.png") as picture:
        assert min(picture.size) > 200

    check = quick_shell(tmp_path, ROOT / "test_submission.py", "--coco_path", "./data")
    assert (check.returncode, check.stderr) == (0, "")
    assert sum(bool(TABLE.fullmatch(line)) for line in check.stdout.splitlines()) == 12

    mistake = quick_shell(tmp_path, ROOT / "test.py", "--coco_path", "./data", *checkpoint, "--depth", 50)
    assert mistake.returncode == 2
    assert "depth is 18, but --depth says 50" in mistake.stderr
    assert "Traceback" not in mistake.stderr


def test_sample_data_is_a_command(tmp_path):
    counts = ("--num_train", 2, "--num_val", 1, "--num_test", 1)
    assert shell(tmp_path, "-m", "retinanet.sample_data", "data", *counts).returncode == 0
    again = quick_shell(tmp_path, "-m", "retinanet.sample_data", "data", *counts)
    assert again.returncode == 2
    assert "train.json: exists already" in again.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder and the output folder of a short training on it."""
    folder, script = tmp_path_factory.mktemp("trained"), ROOT / "train.py"
    for name, count in (("train", 6), ("val", 4), ("test", 3)):
        write_set(folder / "data", name, count)
    arguments = ("--coco_path", "data", "--output_path", "output", *TINY, "--epochs", 1, "--learning_rate", 0.001)
    run = finished([script, *arguments], folder=folder, environment=environment(), is_narrow=True)
    assert run.returncode == 0
    return folder


def train_args(coco_path, output, *more):
    return ("--coco_path", coco_path, "--output_path", output, *SHORT, *more)


def test_same_seed_same_losses_whatever_the_workers(script, coco_path, tmp_path):
    runs = [
        script("train", *train_args(coco_path, tmp_path / f"{number}", "--workers", workers))
        for number, workers in enumerate((0, 0, 3))
    ]
    runs.append(script("train", *train_args(coco_path, tmp_path / "cached", "--workers", 1, "--cache", "ram")))
    assert "Image cache: room for 8 of 8 images, 0.00 GB" in runs[-1].out
    lists = [run.out.splitlines()[-1] for run in runs]
    assert [run.code for run in runs] == [0] * 4
    assert len(set(lists)) == 1
    other = script("train", *train_args(coco_path, tmp_path / "other", "--seed", 1))
    assert other.out.splitlines()[-1] != lists[0]


def test_each_epoch_says_whether_it_waited_for_data(script, coco_path, tmp_path, monkeypatch):
    line = (
        r"Epoch (\d) took 0:00:\d\d, mean loss (\S+)\. Waited for data: \d+% of the time; "
        r"the loader (keeps up|is too slow: .*)\. Clipped: 100% of the steps"
    )
    run = script("train", *train_args(coco_path, tmp_path / "output"))
    found = [match for text in run.out.splitlines() if (match := re.fullmatch(line, text))]
    assert [match[1] for match in found] == ["0", "1"]
    assert [float(match[2]) for match in found] == pytest.approx(losses_of(run.out), abs=1e-5)

    def slowly(path, *others, **how):
        time.sleep(0.1)
        return read_image(path, *others, **how)

    monkeypatch.setattr("retinanet.data.dataset.read_image", slowly)
    run = script("train", *train_args(coco_path, tmp_path / "slow", "--workers", 0))
    assert "the loader is too slow: raise --workers" in run.out


def test_precision_is_reported_and_compilation_checked(script, coco_path, tmp_path, monkeypatch):
    run = script("train", *train_args(coco_path, tmp_path / "output", "--precision", "bfloat16"))
    assert (run.code, "Precision: bfloat16, not compiled" in run.out) == (0, True), run.err
    checkpoint = ("--coco_path", coco_path, "--checkpoint_path", tmp_path / "output" / "model_final.pt")
    results = ("--results_path", tmp_path / "rows.json", "--device", "cpu", "--set_name", "val")
    runs = [
        script("test", *checkpoint, *results, "--precision", "bfloat16", "--eval_backend", backend)
        for backend in ("hotcoco", "pycocotools")
    ]
    assert [one.code for one in runs] == [0, 0], runs[0].err
    assert runs[0].out == runs[1].out
    tables = [[line for line in one.out.splitlines() if TABLE.fullmatch(line)] for one in (*runs, run)]
    assert tables[0] == tables[2][-12:]
    monkeypatch.setattr("shutil.which", lambda name: None)
    run = script("train", *train_args(coco_path, tmp_path / "compiled", "--compile", "on"))
    assert (run.code, "--compile on needs a C compiler" in run.err) == (2, True)
    assert not (tmp_path / "compiled").exists()


def test_compiled_where_it_repays(monkeypatch):
    monkeypatch.setattr(compilation, "lacking_for_compilation", lambda device: None)

    def why_not(compile, device, num_batches, ranks=ALONE, **how):
        return compilation.why_not_compiled(compile, torch.device(device), ranks, num_batches, **how)

    assert why_not("auto", "cpu", 10**9) == "--compile auto compiles on GPUs only"
    assert why_not("auto", "cuda", 100) == "100 batches can't repay it: --compile auto needs at least 10000"
    assert why_not("auto", "cuda", 10**6) is None
    assert why_not("auto", "cuda", 100, was_compiled=True) is None
    assert why_not("auto", "cuda", 10**6, was_compiled=False) == "as before it was resumed"
    assert why_not("on", "cpu", 1) is None
    assert why_not("off", "cuda", 10**9) == "--compile off"
    for others, reason in ((True, None), (False, "another process lacks what it needs")):
        monkeypatch.setattr(Ranks, "all_agree", lambda ranks, own, others=others: own and others)
        assert why_not("auto", "cuda", 10**6, Ranks(0, 2)) == reason
    monkeypatch.undo()
    monkeypatch.setattr(compilation, "lacking_for_compilation", lambda device: "a C compiler")
    assert why_not("auto", "cuda", 10**6) == "it needs a C compiler"


def test_batches_that_compilation_must_repay():
    """Of each rank, in the training or in what takes its place."""
    settings = with_values(TrainSettings(), {"epochs": 10, "batch_size": 4, "accumulate": 2})
    assert build.num_batches(settings, 1000, ALONE) == 2500
    assert build.num_batches(settings, 1000, Ranks(0, 5)) == 500
    assert build.num_batches(with_values(settings, {"find_lr": True, "steps": 300}), 1000, ALONE) == 600
    assert build.num_batches(with_values(settings, {"verify_resume": 7}), 1000, ALONE) == 56


def test_an_earlier_run_is_moved_and_the_record_kept(script, coco_path, tmp_path):
    output = tmp_path / "output"
    first = script("train", *train_args(coco_path, output, "--seed", "random"))
    seed = int(re.search(r"^Seed: (\d+)$", first.out, re.MULTILINE)[1])
    before = {name: content for name, content in files_below(output).items() if name != ".lock"}
    record = json.loads(before["run.json"])
    assert record["settings"]["seed"] == seed
    assert record["class_names"] == ["red", "green"]
    assert record["command"][1] == "train.py"
    again = script("train", *train_args(coco_path, output, "--epochs", 1))
    assert f"{output} holds an earlier run: 7 files moved to {output / 'before_1'}" in again.out
    assert files_below(output / "before_1") == before
    assert not (output / "retinanet_epoch2.pt").exists()


def test_cocos_own_layout(script, coco_path, tmp_path):
    (coco_path / "annotations").mkdir()
    for name in ("train", "val"):
        (coco_path / f"{name}.json").rename(coco_path / "annotations" / f"instances_{name}2017.json")
        (coco_path / "images" / name).rename(coco_path / f"{name}2017")
    sets = ("--train_set", "train2017", "--val_set", "val2017", "--epochs", 1)
    assert script("train", *train_args(coco_path, tmp_path / "output", *sets)).code == 0
    results = tmp_path / "val2017.json"
    arguments = ("--checkpoint_path", tmp_path / "output" / "best.pt", "--results_path", results)
    assert script("test", "--coco_path", coco_path, "--set_name", "val2017", *arguments).code == 0
    assert results.exists()


def test_ids_from_zero_train_and_evaluate_like_ids_from_one(script, tmp_path):
    tables = []
    for first_id in (0, 1):
        folder = tmp_path / str(first_id)
        for name, count in (("train", 6), ("val", 4)):
            write_set(folder, name, count, first_id=first_id)
        run = script("train", *train_args(folder, folder / "output", "--epochs", 3))
        tables.append([line for line in run.out.splitlines() if TABLE.fullmatch(line)] + [losses_of(run.out)])
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "flags", [("--optimizer", "sgd"), ("--optimizer", "adamw", "--weight_decay", 0.1), ("--drop_last",)]
)
def test_flags_that_change_the_run(script, coco_path, tmp_path, flags):
    plain = script("train", *train_args(coco_path, tmp_path / "plain", "--epochs", 1))
    other = script("train", *train_args(coco_path, tmp_path / "other", "--epochs", 1, *flags))
    assert other.code == 0
    assert losses_of(plain.out) != losses_of(other.out)


@pytest.mark.usefixtures("full_network")
def test_partial_weights_are_loaded_and_reported(script, coco_path, tmp_path):
    state = get_model("resnet18", weights=None).state_dict()
    torch.save({name: value for name, value in state.items() if "layer4" not in name}, tmp_path / "part.pth")
    weights = ("--weights", tmp_path / "part.pth", "--epochs", 1)
    run = script("train", *train_args(coco_path, tmp_path / "output", *weights))
    assert run.code == 0
    assert "75 of 100 tensors loaded" in run.out
    assert "so random: layer4\n" in run.out
    assert "not used: fc\n" in run.out


def test_group_norm_and_frozen_stages_train_evaluate_and_resume(script, coco_path, tmp_path):
    state, output = NarrowBackbone(18).state_dict(), tmp_path / "output"
    torch.save(state, tmp_path / "all.pth")
    network = ("--weights", tmp_path / "all.pth", "--freeze_stages", 3, "--head_norm", "group", "--channels", 32)
    run = script("train", *train_args(coco_path, output, *network, "--epochs", 1))
    assert run.code == 0, run.err
    checkpoint = ("--checkpoint_path", output / "model_final.pt", "--results_path", tmp_path / "rows.json")
    val = script("test", "--coco_path", coco_path, "--set_name", "val", "--device", "cpu", *checkpoint)
    tables = [[line for line in one.out.splitlines() if TABLE.fullmatch(line)] for one in (run, val)]
    assert tables[0] == tables[1] != []
    (tmp_path / "all.pth").unlink()  # a resumed run has no use for it
    run = script("train", *train_args(coco_path, output, *network, "--resume"))
    assert run.code == 0, run.err
    assert "Resumed from" in run.out
    model = torch.load(output / "model_final.pt")["model"]
    frozen = [name for name in state if name.startswith(("conv1", "bn1", "layer1", "layer2"))]
    assert all(torch.equal(state[name], model[f"backbone.{name}"]) for name in frozen)
    assert not torch.equal(state["layer3.0.conv1.weight"], model["backbone.layer3.0.conv1.weight"])
    refused = script("train", *train_args(coco_path, output, *network, "--freeze_stages", 2, "--resume"))
    assert (refused.code, "its run has --freeze_stages 3, this command has 2" in refused.err) == (2, True)


@pytest.mark.parametrize("kind", ["no annotations", "fake", "nothing found"])
def test_a_result_file_is_written_without_true_boxes_and_without_detections(script, trained, tmp_path, kind):
    data = tmp_path / "data"
    write_set(data, "test", 4)

    def change(content):
        if kind == "no annotations":
            del content["annotations"]
        elif kind == "fake":
            box = {"category_id": 1, "bbox": [0, 0, 1, 1]}
            content["annotations"] = [box | {"id": image["id"], "image_id": image["id"]} for image in content["images"]]

    change_json(data / "test.json", change)
    results = tmp_path / "rows.json"
    threshold = ("--threshold", 1 if kind == "nothing found" else 0)
    checkpoint = ("--checkpoint_path", trained / "output" / "model_final.pt", "--results_path", results)
    run = script("test", "--coco_path", data, *checkpoint, *threshold)
    assert run.code == 0
    rows = json.loads(results.read_text())
    if kind == "nothing found":
        assert rows == []
        assert run.out.count("= 0.000") == 12 - run.out.count("= -1.000") > 6
    else:
        assert len(rows) > 0
        assert "no objects to compare with" in run.out
        assert ("looks like placeholder boxes: each of the 4 images" in run.out) == (kind == "fake")
        assert "Average" not in run.out


def test_given_sides_win_over_the_checkpoints(script, trained, tmp_path):
    runs = []
    for sides in ((), ("--min_side", 96, "--max_side", 128)):
        results = tmp_path / "rows.json"
        arguments = ("--checkpoint_path", trained / "output" / "best.pt", "--results_path", results, "--threshold", 0)
        assert script("test", "--coco_path", trained / "data", *arguments, *sides).code == 0
        runs.append(json.loads(results.read_text()))
    assert runs[0] != runs[1]


def test_vis_grids_and_detections(script, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ("--coco_path", trained / "data")
    checkpoint = ("--checkpoint_path", trained / "output" / "best.pt", "--threshold", 0)
    assert script("test", *data, "--set_name", "val", *checkpoint).code == 0
    assert script("vis", *data, "--num_images", 12, "--vis_pred", "--threshold", 0).code == 0
    grid = Image.open("vis.png").size
    assert script("vis", *data, "--image_id", 2, "--pred_file", "val_bbox_results.json").code == 0
    assert Image.open("vis.png").size < grid
    wrong = script("vis", *data, "--image_id", 99)
    assert (wrong.code, "has no image 99" in wrong.err) == (2, True)
    missing = script("vis", *data, "--pred_file", "none.json")
    assert (missing.code, "none.json" in missing.err) == (2, True)


def test_show_without_a_screen(script, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    run = script("vis", "--coco_path", trained / "data", "--show")
    assert (run.code, "no screen" in run.err) == (2, True)
    assert (tmp_path / "vis.png").exists()


def test_submission_exit_codes(script, trained, tmp_path):
    results = tmp_path / "rows.json"
    good = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5}]
    arguments = ("--coco_path", trained / "data", "--results_path", results)
    for content, code, words in (
        (json.dumps(good), 0, "Images without a detection (not a mistake): 2"),
        ("[]", 0, "good; 0 detections"),
        (json.dumps([{**good[0], "score": 2}]), 1, "score not a number from 0 to 1: 1"),
        ("{}", 1, "not a list"),
        ("[{", 2, "not valid JSON"),
    ):
        results.write_text(content)
        run = script("test_submission", *arguments)
        assert run.code == code, content
        assert words in run.out + run.err
    results.unlink()
    assert script("test_submission", *arguments).code == 2


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


BAD_DATA = {
    "no data folder": (lambda data: data.rename(data.with_name("elsewhere")), "data: no such data folder"),
    "no annotation file": (lambda data: (data / "train.json").unlink(), r"train\.json: no such annotation file"),
    "no image folder": (lambda data: (data / "images").rename(data / "pictures"), r"no such image folder"),
    "missing image": (lambda data: (data / "images" / "train" / "3.png").unlink(), r"3\.png: no such image"),
    "broken JSON": (lambda data: (data / "val.json").write_text("{"), r"val\.json: not valid JSON"),
    "truncated JSON": (lambda data: cut(data / "train.json"), r"train\.json: not valid JSON"),
    "unknown image": (
        lambda data: change_json(data / "train.json", lambda c: c["annotations"][0].update(image_id=99)),
        r"train\.json: annotation 1: image_id 99",
    ),
    "unknown category": (
        lambda data: change_json(data / "train.json", lambda c: c["annotations"][0].update(category_id=99)),
        r"train\.json: annotation 1: category_id 99",
    ),
    "duplicate image": (
        lambda data: change_json(data / "train.json", lambda c: c["images"][1].update(id=1)),
        r"train\.json: image id 1 appears twice",
    ),
    "no images": (lambda data: change_json(data / "train.json", lambda c: c.update(images=[])), "has no images"),
    "leaves the folder": (
        lambda data: change_json(data / "train.json", lambda c: c["images"][0].update(file_name="../1.png")),
        r"train\.json: file_name '\.\./1\.png' of image 1 leaves",
    ),
    "no val image": (
        lambda data: (data / "images" / "val" / "2.png").write_text("no image"),
        r"2\.png: can't be read as an image",
    ),
    "other val size": (
        lambda data: change_json(data / "val.json", lambda c: c["images"][0].update(width=65)),
        r"1\.png: the image is 64 x 64 \(height x width\), its annotation says 64 x 65",
    ),
    "other categories": (
        lambda data: change_json(data / "val.json", lambda c: c["categories"][0].update(name="blue")),
        r"val\.json: has the categories",
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_stops_before_anything_is_written(script, coco_path, tmp_path, kind):
    output = tmp_path / "output"
    output.mkdir()
    (output / "run.json").write_text("earlier")
    spoil, words = BAD_DATA[kind]
    spoil(coco_path)
    run = script("train", *train_args(coco_path, output))
    assert run.code == 2
    assert re.search(words, run.err), run.err
    assert re.fullmatch(r"train\.py: error: [^\n]+\n", run.err)  # one message and no traceback
    assert files_below(output) == {"run.json": b"earlier"}


def test_weights_outlive_an_evaluation_that_fails(script, coco_path, tmp_path):
    assert script("train", *train_args(coco_path, tmp_path / "output", "--epochs", 1)).code == 0
    cut(coco_path / "images" / "val" / "2.png")  # a resumed run doesn't decode the val set first
    run = script("train", *train_args(coco_path, tmp_path / "output", "--epochs", 2, "--resume"))
    assert run.code == 2
    assert re.search(r"2\.png: can't be read as an image", run.err)
    weights = {"retinanet_epoch1.pt", "retinanet_epoch2.pt", "best.pt", "model_final.pt"}
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"run.json", *weights} | RESUMABLE


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_refused_by_name(script, coco_path, tmp_path, workers):
    cut(coco_path / "images" / "train" / "5.png")
    run = script("train", *train_args(coco_path, tmp_path / "output", "--workers", workers))
    assert run.code == 2
    assert re.search(r"5\.png: can't be read as an image", run.err)
    assert "Traceback" not in run.err


def test_bad_images_are_skipped_up_to_one_in_a_hundred(script, tmp_path):
    data = tmp_path / "data"
    write_set(data, "train", 101)
    write_set(data, "val", 2)
    cut(data / "images" / "train" / "5.png")
    arguments = train_args(data, tmp_path / "output", "--bad_images", "skip", "--batch_size", 16)
    run = script("train", *arguments, "--epochs", 1)
    assert run.code == 0
    assert len(re.findall(r"^Bad image, left out: .*5\.png: can't be read", run.out, re.MULTILINE)) == 1
    for number in range(6, 11):
        (data / "images" / "train" / f"{number}.png").unlink()
    run = script("train", *arguments, "--epochs", 1)
    assert run.code == 2
    assert "This is bad image 6 of 101, and --bad_images skip allows only 5." in run.err


def test_evaluation_never_drops_an_image(script, trained, tmp_path):
    write_set(tmp_path / "data", "test", 101)
    cut(tmp_path / "data" / "images" / "test" / "5.png")
    results = tmp_path / "rows.json"
    arguments = ("--checkpoint_path", trained / "output" / "best.pt", "--results_path", results)
    run = script("test", "--coco_path", tmp_path / "data", *arguments)
    assert (run.code, "5.png" in run.err) == (2, True)
    assert not results.exists()


def spoiled_checkpoint(path, trained, kind):
    if kind == "text":
        path.write_text("weights")
    elif kind == "other file":
        torch.save({"conv1.weight": torch.zeros(2)}, path)
    elif kind == "code":
        path.write_bytes(pickle.dumps(print))
    elif kind == "truncated":
        path.write_bytes((trained / "output" / "best.pt").read_bytes())
        cut(path)


@pytest.mark.parametrize("kind", ["missing", "text", "other file", "code", "truncated"])
def test_bad_checkpoints(script, trained, tmp_path, kind):
    path, results = tmp_path / "bad.pt", tmp_path / "rows.json"
    results.write_text("earlier")
    spoiled_checkpoint(path, trained, kind)
    run = script("test", "--coco_path", trained / "data", "--checkpoint_path", path, "--results_path", results)
    assert run.code == 2
    assert re.fullmatch(r"test\.py: error: [^\n]*bad\.pt: [^\n]+\n", run.err)
    assert results.read_text() == "earlier"


def test_a_checkpoint_of_other_classes(script, trained, tmp_path):
    write_set(tmp_path / "data", "test", 3)
    change_json(tmp_path / "data" / "test.json", lambda content: content["categories"][1].update(name="blue"))
    run = script("test", "--coco_path", tmp_path / "data", "--checkpoint_path", trained / "output" / "best.pt")
    assert run.code == 2
    assert re.search(r"test\.json: has the categories .*blue.*best\.pt has .*green", run.err)


@pytest.mark.parametrize(
    "flags",
    [
        ("--depth", 19),
        ("--batch_size", 0),
        ("--learning_rate", -1),
        ("--learning_rate", "nan"),
        ("--device", "cuda:99"),
        ("--device", "tpu"),
        ("--epochs", 0),
        ("--seed", "often"),
        ("--optimizer", "lion"),
        ("--prior", 0),
        ("--background_iou", 0.6),
        ("--matcher", "hungarian"),
        ("--matcher", "atss", "--foreground_iou", 0.6),
        ("--matcher", "atss", "--background_iou", 0.3),
        ("--box_loss", "giou", "--beta", 0.5),
        ("--max_side", 40),
        ("--threshold", 1.5),
        ("--weights", "no_such_file.pth"),
        ("--drop_last", "--batch_size", 9),
        ("--unknown", 1),
        ("--precision", "float16"),
        ("--precision", "int8"),
        ("--compile", "often"),
        ("--cache", "disk"),
        ("--eval_backend", "guess"),
    ],
)
def test_wrong_flag_values(script, coco_path, tmp_path, flags):
    run = script("train", *train_args(coco_path, tmp_path / "output", *flags))
    assert run.code == 2
    assert "error: " in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "output").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu(script, coco_path, tmp_path):
    run = script("train", *train_args(coco_path, tmp_path / "output", "--device", "cuda"))
    assert (run.code, "PyTorch sees 0 GPUs" in run.err) == (2, True)


def test_a_diverging_run_ends_with_a_message(script, coco_path, tmp_path):
    flags = ("--optimizer", "sgd", "--learning_rate", 1e38, "--clip_norm", 1e38, "--epochs", 5)
    run = script("train", *train_args(coco_path, tmp_path / "output", *flags))
    assert (run.code, "training diverged" in run.err) == (3, True)
    told = [line for line in run.out.splitlines() if line.startswith("Skipped: ")]
    assert len(told) == 10
    assert re.search(r"epoch 0, iteration 2: .*loss nan.*learning rate 1e\+38, images \d\.png \(\d box(es)?\)", told[0])
    assert told[-1].endswith("Skipped so far: 10")
    written = json.loads((tmp_path / "output" / "divergence" / "epoch0_iteration2.json").read_text())
    assert {"learning_rate", "gradient_norm", "classification_loss", "images"} <= written.keys()
    boxes = [image for image in written["images"] if image["boxes"]]
    assert all(image["file_name"] == f"{image['image_id']}.png" and len(image["classes"]) == 1 for image in boxes)


@pytest.mark.parametrize("name", ["train", "test", "vis", "test_submission"])
def test_help_shows_defaults(script, name):
    run = script(name, "--help")
    assert run.code == 0
    assert "(default: " in run.out


def test_help_groups_the_flags(script):
    out = script("train", "--help", "all").out
    for group in ("data:", "network:", "loss:", "optimisation:", "output:", "detection:", "machine:"):
        assert f"\n{group}\n" in out


@pytest.mark.skipif("VOC5" not in os.environ, reason="needs $VOC5, a dataset of real photographs")
def test_real_photographs_train(script, tmp_path):
    voc5 = Path(os.environ["VOC5"])
    content = json.loads((voc5 / "train.json").read_text())
    content["images"] = content["images"][:8]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in ("train", "val"):
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / "data" / "images" / name).symlink_to(voc5.resolve() / "images" / "train")
    assert script("train", *train_args(tmp_path / "data", tmp_path / "output", "--epochs", 1)).code == 0

"""What a command imports before its first line, and what it reports without importing PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoint_files import random_checkpoint
from support.logs import todays, written
from support.narrow import START

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "torchvision", "torch._dynamo", "matplotlib")
WATCH = f"""
import json, runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = "."
how = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
try:
    how(sys.argv[0], run_name="__main__")
finally:
    print("\\nIMPORTED", json.dumps([name for name in {SLOW} if name in sys.modules]))
"""


def run(*words, **environment) -> tuple[int, set[str], str]:
    """Runs a command; returns its exit code, which of SLOW it imported, and its output."""
    command, environment = [sys.executable, "-c", WATCH, *map(str, words)], os.environ | environment
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    output, _, imported = ended.stdout.rpartition("\nIMPORTED ")
    return ended.returncode, set(json.loads(imported)), output + ended.stderr


def test_logs_are_drawn_without_pytorch(tmp_path):
    log = written(tmp_path, todays())
    code, imported, _ = run("vis.py", "--logs", log, "--picture", tmp_path / "vis.png")
    assert (code, imported) == (0, {"matplotlib"})
    assert (tmp_path / "vis.png").exists()


def test_a_set_is_converted_without_pytorch(coco_path, tmp_path):
    code, imported, output = run("retinanet.convert", coco_path, "--to", "yolo", "--output_path", tmp_path / "new")
    assert (code, imported) == (0, set()), output


def test_the_check_needs_neither_torchvision_nor_the_compiler(coco_path, tmp_path):
    words = ("retinanet.check_data", "--coco_path", coco_path, "--picture_path", tmp_path / "check.png")
    assert run(*words)[1] == {"torch", "matplotlib"}


def test_training_and_detection_need_neither_torchvision_nor_the_compiler(coco_path, tmp_path):
    sizes = ("--depth", 18, "--weights", "none", "--channels", 32, "--min_side", 64, "--max_side", 64)
    machine = ("--epochs", 1, "--batch_size", 4, "--device", "cpu", "--workers", 0)
    words = ("--coco_path", coco_path, *sizes, *machine, "--output_path", tmp_path / "run")
    code, imported, output = run("train.py", *words, PYTHONPATH=str(START))
    assert (code, imported) == (0, {"torch"}), output
    image = next((coco_path / "images" / "val").iterdir())
    words = ("--checkpoint_path", tmp_path / "run" / "best.pt", "--device", "cpu", "--output_path", tmp_path / "found")
    code, imported, output = run("retinanet.predict", image, *words, PYTHONPATH=str(START))
    assert (code, imported) == (0, {"torch", "matplotlib"}), output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train.py", "--coco_path", "{}/nowhere"), "nowhere: no such data folder"),
        (("train.py", "--coco_path", "{}", "--val_set", "valid2"), "valid2.json: no such annotation file"),
        (("test.py", "--checkpoint_path", "{}/x.pt"), "x.pt: no such file"),
        (("retinanet.check_labels", "--coco_path", "{}", "--train_set", "all"), "all.json: no such annotation file"),
        (("retinanet.predict", "a.jpg", "--checkpoint_path", "{}/x.pt"), "x.pt: no such file"),
        (("retinanet.export", "--checkpoint_path", "{}/x.pt"), "x.pt: no such file"),
    ],
)
def test_a_wrong_path_is_reported_before_pytorch_is_imported(coco_path, words, message):
    code, imported, output = run(*(word.format(coco_path) for word in words))
    assert (code, imported) == (2, set())
    assert message in output


@pytest.mark.parametrize(
    ("name", "words", "default", "other"),
    [
        ("test", ("--set_name", "val", "--coco_path", "{}"), "model_final.pt", "best.pt"),
        ("retinanet/predict/__main__", ("{}/images/val",), "best.pt", "model_final.pt"),
        ("retinanet/export/__main__", ("--format", "safetensors"), "best.pt", "model_final.pt"),
    ],
)
def test_the_other_checkpoint_of_the_run_is_used_if_only_that_exists(
    script, coco_path, tmp_path, monkeypatch, name, words, default, other
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    random_checkpoint(tmp_path / "output" / other)
    words = [word.format(coco_path) for word in words]
    ended = script(name, *words)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"output/{default} does not exist, so output/{other} is used\n")
    asked = script(name, *words, "--checkpoint_path", f"elsewhere/{default}")
    assert (asked.code, asked.err.count("\n")) == (2, 1)
    assert f"elsewhere/{default}: no such file" in asked.err


@pytest.mark.parametrize(
    ("epoch_of_final", "ap"), [(None, None), (10, "0.250 after epoch 10"), (30, "0.375 after epoch 30")]
)
def test_both_checkpoints_of_the_run_are_compared(script, coco_path, tmp_path, monkeypatch, epoch_of_final, ap):
    """Even if the final one is from the end before the run was resumed with more epochs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    random_checkpoint(tmp_path / "output" / "best.pt")
    if epoch_of_final:
        random_checkpoint(tmp_path / "output" / "model_final.pt", epoch=epoch_of_final)
    (tmp_path / "output" / "run.json").write_text('{"ap_by_epoch": {"10": 0.25, "20": 0.5, "30": 0.375}}')
    ended = script("retinanet/predict/__main__", coco_path / "images" / "val")
    line = f"On the run's val set: output/best.pt AP 0.500 after epoch 20; output/model_final.pt AP {ap}"
    assert (line in ended.out.splitlines()) == (ap is not None)
    assert ("On the run's val set" in ended.out) == (ap is not None)


def test_the_commands_are_listed():
    ended = subprocess.run([sys.executable, "-m", "retinanet"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) == len(list(ROOT.glob("retinanet/commands/*.py"))) + 3
    wrong = subprocess.run([sys.executable, "-m", "retinanet", "predict"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Did you mean python -m retinanet.predict?" in wrong.stderr
    names = {line.split("  ")[0] for line in ended.stdout.splitlines() if line.startswith("python ")}
    modules = {path.parent.name for path in ROOT.glob("retinanet/*/__main__.py")} | {"launch"}
    assert names == {f"python -m retinanet.{name}" for name in modules} | {
        f"python {path.name}" for path in ROOT.glob("*.py")
    }

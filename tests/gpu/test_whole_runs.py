"""train.py and test.py on a GPU, from the command line to the result file."""

import ast
import json

import numpy as np
import pytest
import torch
from support.data_folder import write_set
from support.scripts import TINY

from gpu.waits import forbid_waits_in_runs
from retinanet.checkpoints.resume import LAST, load_saved

CUDA = (*TINY, "--device", "cuda", "--batch_size", 2, "--epochs", 1, "--workers", 0, "--learning_rate", 0.001)


@pytest.fixture
def data(tmp_path):
    for name, count in (("train", 6), ("val", 3)):
        write_set(tmp_path / "data", name, count)
    return tmp_path / "data"


@pytest.fixture
def train(script, data, tmp_path, monkeypatch, host):
    """Run train.py on the GPU. No step may wait, nor detection but in its suppression; neither may test.py's."""
    forbid_waits_in_runs(monkeypatch)

    def call(*flags, output="output"):
        return script("train", "--coco_path", data, "--output_path", tmp_path / output, *CUDA, *flags)

    yield call
    torch.use_deterministic_algorithms(False)


def losses_of(run):
    assert run.code == 0, run.err
    return ast.literal_eval(run.out.splitlines()[-1])


def test_training_and_testing_are_the_cpus(train, script, data, tmp_path):
    flags = ("--precision", "float32", "--log_every", 2)
    own = losses_of(train(*flags, "--device", "cpu", output="cpu"))
    assert losses_of(train(*flags)) == pytest.approx(own, rel=1e-3)
    found = {}
    for device in ("cuda", "cpu"):
        paths = ("--coco_path", data, "--results_path", tmp_path / f"{device}.json", "--set_name", "val")
        flags = ("--device", device, "--precision", "float32", "--workers", 0, "--num_draws", 0)
        looks = ("--flip_test", "--test_sides", 64, 96, "--threshold", 0.001, "--max_detections", 20)
        checkpoint = ("--checkpoint_path", tmp_path / "output" / "model_final.pt")
        run = script("test", *paths, *checkpoint, *flags, *looks)
        assert run.code == 0, run.err
        found[device] = json.loads((tmp_path / f"{device}.json").read_text())
    assert len(found["cuda"]) == len(found["cpu"]) > 0
    for key in ("image_id", "category_id", "bbox", "score"):
        values, others = ([row[key] for row in found[device]] for device in ("cuda", "cpu"))
        np.testing.assert_allclose(values, others, rtol=1e-3, atol=1e-2)


def test_the_default_precision_with_worker_processes(train):
    """Batches of several sides, so that most shapes are new."""
    flags = ("--workers", 1, "--train_sides", 64, 96, "--min_side", 64, "--max_side", 128, "--log_every", 100)
    run = train("--batch_size", 1, *flags, "--box_loss", "giou", "--matcher", "atss")
    assert losses_of(run)[0] > 0
    assert "Precision: bfloat16, not compiled" in run.out
    assert not torch.backends.cudnn.benchmark  # a search for each of so many shapes


def test_a_scale_of_float16_that_overflows_is_no_skipped_step(train, tmp_path):
    run = train("--precision", "float16", "--max_skipped", 1, "--log_every", 1)
    assert run.code == 0, run.err
    assert torch.backends.cudnn.benchmark
    assert "Skipped" not in run.out + run.err
    assert not (tmp_path / "output" / "divergence").exists()
    assert load_saved(tmp_path / "output" / LAST).state["scaler"]["scale"] < 2**16  # it did overflow


def test_a_resumed_run_is_the_same_to_the_bit(train):
    flags = ("--head_norm", "group", "--channels", 32, "--ema_decay", 0.9, "--matcher", "atss")
    run = train("--verify_resume", 2, "--deterministic", *flags)
    assert run.code == 0, run.out
    assert "Equal to the last bit" in run.out
    assert "does not have a deterministic implementation" not in run.err

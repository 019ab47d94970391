"""Nothing that a replayed CUDA graph has returned is used after its next replay."""

import ast

import pytest
import torch
from conftest import TINY, write_set

from gpu.stand_in_graphs import Graphs, compile_as_graphs
from retinanet import compute, train_setup

FLAGS = (*TINY, "--device", "cuda", "--precision", "float32", "--workers", 0, "--batch_size", 1, "--optimizer", "sgd")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    write_set(folder, "train", 6)
    write_set(folder, "val", 1)
    return folder


@pytest.fixture
def losses(script, data, tmp_path, monkeypatch, host):
    """The logged losses of a short training with these flags, and how often graphs were replayed in it."""
    monkeypatch.setattr(torch, "compile", compile_as_graphs)

    def call(*flags):
        Graphs.num_replays = 0
        paths = ("--coco_path", data, "--output_path", tmp_path / flags[1])
        run = script("train", *paths, *FLAGS, "--epochs", 1, "--log_every", 1, "--learning_rate", 0.001, *flags)
        if run.code != 0:
            return run.err, Graphs.num_replays
        lines = [line.split(" | ")[2:5] for line in run.out.splitlines() if line.startswith("Epoch: ")]
        return (
            [float(part.split()[-1]) for line in lines for part in line],
            *ast.literal_eval(run.out.splitlines()[-1]),
        ), Graphs.num_replays

    return call


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_over_graphs_is_the_one_without(losses, accumulate):
    wanted, none = losses("--compile", "off", "--accumulate", accumulate)
    found, replays = losses("--compile", "on", "--accumulate", accumulate)
    assert found == wanted
    assert none == 0
    assert replays == (6 if accumulate == 1 else 0)  # gradients that add up don't lie in a graph's memory


def test_gradients_kept_over_replays_would_be_seen(losses, monkeypatch):
    losses_of = compute.losses_of
    monkeypatch.setattr(
        train_setup, "losses_of", lambda *args, **more: losses_of(*args, **{**more, "cuda_graphs": True})
    )
    wanted, _ = losses("--compile", "off", "--accumulate", 2)
    found, replays = losses("--compile", "on", "--accumulate", 2)
    assert replays > 0
    assert found != wanted

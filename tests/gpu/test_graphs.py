"""Nothing that a replayed CUDA graph has returned is used after its next replay."""

import pytest
import torch
from support.data_folder import write_set
from support.scripts import TINY

from gpu.stand_in_graphs import Graphs, compile_as_graphs
from retinanet.training import build

FLAGS = (
    *(*TINY, "--device", "cuda", "--precision", "float32", "--workers", 0, "--batch_size", 1, "--epochs", 1),
    *("--optimizer", "sgd", "--learning_rate", 0.001, "--log_every", 1),
)
NUM_STEPS = 4  # of one image each


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    write_set(folder, "train", NUM_STEPS)
    write_set(folder, "val", 1)
    return folder


@pytest.fixture
def losses(script, data, tmp_path, monkeypatch, host):
    """The logged losses of a short training with these flags; NaN where it stopped at one."""
    monkeypatch.setattr(torch, "compile", compile_as_graphs)
    monkeypatch.setattr(Graphs, "num_replays", 0)

    def call(*flags):
        paths = ("--coco_path", data, "--output_path", tmp_path / flags[0])
        run = script("train", *paths, *FLAGS, "--compile", *flags)
        lines = [line.split(" | ")[2:5] for line in run.out.splitlines() if line.startswith("Epoch: ")]
        return [float(part.split()[-1]) for line in lines for part in line]

    return call


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_over_graphs_is_the_one_without(losses, accumulate):
    wanted = losses("off", "--accumulate", accumulate)
    assert len(wanted) == 3 * NUM_STEPS / accumulate
    assert losses("on", "--accumulate", accumulate) == wanted
    # Gradients that add up may not lie in a graph's memory.
    assert Graphs.num_replays == (NUM_STEPS if accumulate == 1 else 0)


def test_gradients_kept_over_replays_would_be_seen(losses, monkeypatch):
    compiled = build.Compiled

    def with_graphs(batch_size, cuda_graphs):
        return compiled(batch_size, cuda_graphs=True)

    wanted = losses("off", "--accumulate", 2)
    monkeypatch.setattr(build, "Compiled", with_graphs)
    found = losses("on", "--accumulate", 2)
    assert Graphs.num_replays == NUM_STEPS
    assert found != pytest.approx(wanted)

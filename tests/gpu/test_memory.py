"""Wherever a GPU's memory runs out, a run ends with exit code 4 and advice."""

import pytest
import torch
from support.data_folder import NAMES, write_set
from support.scripts import TINY

from gpu.cases import CPU, make_network
from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState

GPU = torch.device("cuda", 0)
# The function in which it runs out, and at which operation; those of the backward pass belong to no function.
TRAINING = {
    "network": ("_state", "_to_copy"),
    "batch": ("on_device", "_to_copy"),
    "forward": ("", "convolution"),
    "folded weights": ("_cast", "_foreach_copy_"),
    "loss": ("loss_of_assigned", "focal_sum"),
    "backward": ("", "convolution_backward"),
    "first step of the optimizer": ("step", "zeros_like"),
}
DETECTION = {
    "network": ("evaluate_checkpoint", "_to_copy"),
    "folded weights": ("folded_once", "_foreach_copy_"),
    "batch": ("on_device", "_to_copy"),
    "forward": ("", "convolution"),
    "mirrored images": ("mirrored", "gather"),
    "candidates": ("find_candidates", "topk"),
    "suppression": ("suppress", "nms"),
}
FLAGS = ("--device", "cuda", "--workers", 0, "--batch_size", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder, and the checkpoint of a network that learned nothing."""
    folder = tmp_path_factory.mktemp("memory")
    for name in ("train", "val"):
        write_set(folder / "data", name, 2)
    weights = make_network(CPU).state_dict()
    save_checkpoint(Checkpoint(weights, 18, 32, list(NAMES), [1, 2], 64, 96, 2, 1, {}), folder / "network.pt")
    return folder


def assert_explained(run):
    assert run.code == 4, run.err[-3000:]
    assert "error: memory ran out" in run.err
    assert "--batch_size" in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize("phase", TRAINING)
def test_in_training(script, folder, host, phase):
    host.memory_ends_at = TRAINING[phase]
    paths = ("--coco_path", folder / "data", "--output_path", folder / "output")
    assert_explained(script("train", *paths, *TINY, *FLAGS, "--epochs", 1))


@pytest.mark.parametrize("phase", DETECTION)
def test_in_detection(script, folder, host, phase):
    host.memory_ends_at = DETECTION[phase]
    paths = ("--coco_path", folder / "data", "--results_path", folder / "results.json")
    checkpoint = ("--checkpoint_path", folder / "network.pt", "--set_name", "val")
    assert_explained(script("test", *paths, *checkpoint, *FLAGS, "--flip_test"))
    assert not (folder / "results.json").exists()


def test_a_save_of_flat_parameters_takes_none(host):
    network = make_network(GPU)
    state = TrainingState(network, build_optimizer(network, "adam", 1e-4, 0.0), GPU)
    for long in state.flatten().long:
        long.grad = torch.ones_like(long)
    state.optimizer.step()
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    saved = [*state.weights().values(), *state.to_plain()["optimizer"]["state"][0].values()]
    assert {value.device for value in saved} == {CPU}
    assert torch.cuda.max_memory_allocated(GPU) == before

"""Wherever a GPU's memory runs out, a run ends with exit code 4 and advice."""

import pytest
from support.data_folder import NAMES, write_set
from support.scripts import TINY

from gpu.cases import CPU, make_network
from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint

# The function in which it runs out, and at which operation; those of the backward pass belong to no function.
TRAINING = {
    "network": ("_state", "_to_copy"),
    "batch": ("on_device", "_to_copy"),
    "forward": ("", "convolution"),
    "loss": ("loss_of_assigned", "sigmoid"),
    "backward": ("", "convolution_backward"),
    "first step of the optimizer": ("step", "zeros_like"),
}
DETECTION = {
    "network": ("look_for", "_to_copy"),
    "folded weights": ("folded_network", "rsqrt"),
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
    network = make_network(CPU)
    about = {"class_names": list(NAMES), "category_ids": [1, 2], "min_side": 64, "max_side": 96, "batch_size": 2}
    checkpoint = Checkpoint(network.state_dict(), network.architecture, epoch=1, settings={}, **about)
    save_checkpoint(checkpoint, folder / "network.pt")
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

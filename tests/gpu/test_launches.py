"""How many kernels a step and a forward pass launch, and the memory that a step needs.

A small batch takes as long as its host needs to launch its kernels.
"""

import pytest
import torch

from gpu.cases import make_batches
from gpu.launches import Launches
from retinanet.detector.model import RetinaNet
from retinanet.fast import focal_one_pass
from retinanet.fast.epilogues import SWITCH
from retinanet.fast.folded_network import folded_once
from retinanet.runtime.device import autocast
from retinanet.training.engine import train_steps
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState

GPU = torch.device("cuda", 0)
NUM_CLASSES = 80
CONVOLUTIONS = 111  # of a forward pass: 53 of the backbone, 8 of the pyramid, 5 x 10 of the heads


@pytest.fixture
def network():
    return RetinaNet(NUM_CLASSES, 50).to(GPU)


def launches_of_a_step(network, size=(128, 192)):
    state = TrainingState(network, build_optimizer(network, "adam", 1e-4, weight_decay=0.0), GPU)
    losses = losses_of(network, NUM_CLASSES, GPU, precision=torch.bfloat16)
    batches = make_batches(3, size, pinned=True)
    steps = train_steps(state, batches, rates=[1e-4] * 3, clip_norm=0.1, compute_losses=losses)
    for _ in steps:
        with Launches() as launches:  # a first step makes more: constants, the optimiser's moments
            next(steps)
        return launches


def launches_of_a_forward(network):
    images = torch.zeros(2, 3, 128, 192, dtype=torch.uint8, device=GPU)
    with Launches(), torch.no_grad(), autocast(GPU, torch.bfloat16):
        once = folded_once(network.eval(), torch.bfloat16)
        with Launches() as launches:
            once(images)
    return launches.total


@pytest.mark.parametrize("epilogues", ["0", "1"])
def test_an_eager_step(network, monkeypatch, epilogues):
    monkeypatch.setenv(SWITCH, epilogues)
    # Nothing is computed here, so the trial of the kernel would fail.
    monkeypatch.setattr(focal_one_pass, "_agrees", lambda device, dtype: True)
    with Launches():
        launches = launches_of_a_step(network)
    assert launches.by_operation["focal_sum"] > 0
    if epilogues == "0":
        assert launches.by_operation["convolution"] == 2 * CONVOLUTIONS  # each with its bias
        assert launches.total < 1080
    else:
        assert launches.total < 885


def test_a_forward_pass_of_an_evaluation(network, monkeypatch):
    assert launches_of_a_forward(network) - CONVOLUTIONS < 250  # PyTorch's; cuDNN adds one for each convolution
    monkeypatch.setenv(SWITCH, "1")
    assert launches_of_a_forward(network) < 160  # and those of cuDNN


def test_the_memory_of_a_step(network, monkeypatch):
    """1.33 GB, of which the network has 0.15; with the plain ways it is 1.69 GB."""
    monkeypatch.setattr(focal_one_pass, "_agrees", lambda device, dtype: True)
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    with Launches():
        launches_of_a_step(network, (608, 1024))
    assert torch.cuda.max_memory_allocated(GPU) - before < 1.25e9

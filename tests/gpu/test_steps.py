"""Training steps on a GPU are the CPU's, for every matcher and box loss, and make the host wait for nothing."""

import pytest
import torch

from gpu.cases import Case, make_batches, make_network, train
from gpu.comparing import assert_same
from gpu.waits import waits_forbidden
from retinanet.data.device_feed import on_device
from retinanet.detector.settings import BOX_LOSSES, MATCHERS, LossSettings
from retinanet.training.losses import losses_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("matcher", MATCHERS)
def test_every_loss(host, matcher, box_loss):
    case = Case(loss=LossSettings(matcher=matcher, box_loss=box_loss, ignore_crowds=box_loss == "giou"))
    assert_same(train(GPU, case), train(CPU, case))
    assert host.runtime.refused == 0


@pytest.mark.parametrize("matcher", MATCHERS)
def test_a_new_shape_makes_nobody_wait(host, matcher):
    losses = losses_of(make_network(GPU), 2, GPU, loss_settings=LossSettings(matcher=matcher))
    for size in ((64, 96), (96, 64)):
        batches = make_batches(1, size, pinned=True)
        with waits_forbidden():
            (batch,) = on_device(batches, GPU)
            losses(batch.images, batch.targets)

"""Training steps on a GPU are the CPU's in every variant of a run, and make the host wait for nothing."""

from functools import cache

import pytest
import torch

from gpu.cases import Case, make_batches, make_network, train
from gpu.comparing import assert_near, assert_same
from retinanet.detector.settings import LossSettings
from retinanet.runtime.device import autocast

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
VARIANTS = {
    "adam": Case(optimizer="adam"),
    "adamw, frozen stages": Case(optimizer="adamw", frozen=3),
    "accumulate, average of the weights": Case(accumulate=2, ema_decay=0.9),
    "group norm": Case(head_norm="group"),
    "learned batch norm": Case(learn_statistics=True, size=(128, 128)),
}
IN_HALVES = {
    "defaults": Case(),
    "recommended": Case(loss=LossSettings(matcher="atss", box_loss="giou"), head_norm="group", ema_decay=0.9),
}


@cache
def on_cpu(case):
    return train(CPU, case)


@pytest.mark.parametrize("name", VARIANTS)
def test_float32(host, name):
    assert_same(train(GPU, VARIANTS[name]), on_cpu(VARIANTS[name]))
    assert host.runtime.refused == 0


@pytest.mark.parametrize("name", IN_HALVES)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_halves(host, name, precision):
    """From noise a bfloat16 gradient is right to a third on a CPU too: each rounding flips some ReLUs."""
    case = IN_HALVES[name]._replace(precision=precision)
    found, wanted = train(GPU, case), on_cpu(IN_HALVES[name])
    of_changes = 0.5 if precision == torch.bfloat16 else 0.25
    assert_near(found, wanted, of_weights=0.02, of_changes=of_changes, of_losses=0.02)


def test_group_norm_runs_in_the_format_of_its_network(host):
    """Left to itself, CUDA's autocast takes it, and all that comes after it, back to float32."""
    network, (batch,) = make_network(GPU, Case(head_norm="group")), make_batches(1)
    with autocast(GPU, torch.bfloat16):
        network(batch.images.to(GPU))
    assert host.formats["native_group_norm"] == {torch.bfloat16}

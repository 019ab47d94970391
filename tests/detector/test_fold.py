from copy import deepcopy

import pytest
import torch
from support.built import small_network
from torch import nn

from retinanet.detector.fold import folded_network

pytestmark = pytest.mark.usefixtures("narrow_network")

IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KINDS = {
    "basic blocks": {"depth": 18},
    "bottlenecks": {"depth": 50},
    "group norm, level code": {"channels": 32, "head_norm": "group", "level_code": True},
    "P6 from P5": {"p6_from_p5": True},
}


def make_network(kind="basic blocks"):
    torch.manual_seed(0)
    network = small_network(**KINDS[kind])
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # or means of 0 and deviations of 1 would hide a mistake
            nn.init.normal_(layer.weight, 1, 0.1)
            for value in (layer.bias, layer.running_mean):
                nn.init.normal_(value, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    for head in (network.classification_head, network.regression_head):
        nn.init.normal_(head.output.weight, std=0.1)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_network_itself(kind):
    network = make_network(kind).double()  # or rounding would hide a small mistake
    folded = folded_network(network, torch.float64)
    assert type(folded) is type(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    for found, wanted in zip(folded(IMAGES), network(IMAGES), strict=True):
        assert (found - wanted).norm() <= 1e-7 * wanted.norm()  # 1e-7: the mean colour is a float32


@torch.no_grad()
def test_bfloat16_is_as_autocast_rounds_it():
    network = make_network()
    folded = folded_network(network, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = folded(IMAGES), network(IMAGES)
    for found, wanted in zip(*predictions, strict=True):
        assert found.dtype == wanted.dtype == torch.bfloat16
        assert (found.float() - wanted.float()).norm() <= 0.02 * wanted.float().norm()


def test_folding_leaves_the_network_unchanged():
    network = make_network().train()
    before = deepcopy(network.state_dict())
    folded_network(network, torch.bfloat16)
    assert network.training
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())

from copy import deepcopy

import pytest
import torch
from torch import nn

from retinanet.checkpoints.level_code import LevelCodedRetinaNet
from retinanet.detector.model import RetinaNet
from retinanet.fast.epilogues import SWITCH, with_epilogues
from retinanet.fast.folded_network import FoldedNetwork, fixed_statistics, folded_once

pytestmark = pytest.mark.usefixtures("narrow_network")

IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KINDS = {
    "basic blocks": (RetinaNet, {"depth": 18, "channels": 8}),
    "bottlenecks": (RetinaNet, {"depth": 50, "channels": 8}),
    "group norm, level code": (LevelCodedRetinaNet, {"depth": 18, "channels": 32, "head_norm": "group"}),
}


def make_network(kind="basic blocks"):
    torch.manual_seed(0)
    network_class, arguments = KINDS[kind]
    network = network_class(2, **arguments)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # or means of 0 and deviations of 1 would hide a mistake
            nn.init.normal_(layer.weight, 1, 0.1)
            for value in (layer.bias, layer.running_mean):
                nn.init.normal_(value, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, nn.GroupNorm):  # or a group of one value would be 0, and rounding the sign for its ReLU
            nn.init.normal_(layer.bias)
    for head in (network.classification_head, network.regression_head):
        nn.init.normal_(head.output.weight, std=0.1)
    return network.train().double()  # or rounding would decide which of two pixels a max-pool takes


def results_of(call, network):
    """The predictions and all gradients of a sum that weighs each of them differently."""
    network.zero_grad()
    predictions = call(IMAGES)
    draw = torch.Generator().manual_seed(1)
    total = sum((part * torch.randn(part.shape, generator=draw, dtype=part.dtype)).sum() for part in predictions)
    total.backward()
    return [*predictions, *(value.grad for value in network.parameters())]


def assert_near(found, wanted, share):
    """In size, of each tensor: a small value may differ by what is rounding for the others."""
    for got, own in zip(found, wanted, strict=True):
        assert (got is None) == (own is None)
        if own is not None:
            assert got.dtype == own.dtype
            assert (got.double() - own.double()).norm() <= share * own.double().norm()


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_gradients_are_the_networks(kind):
    network = make_network(kind)
    folded = FoldedNetwork(network, torch.float64)
    assert_near(results_of(folded, network), results_of(network, network), 1e-7)


def test_bfloat16_is_as_autocast_rounds_it():
    network = make_network().float()
    folded = FoldedNetwork(network, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = (call(IMAGES) for call in (folded, network))
    assert found.logits.dtype == torch.bfloat16
    assert_near(found, wanted, 0.02)
    exact = network(IMAGES)
    assert all((one.float() - other).norm() > 1e-4 * other.norm() for one, other in zip(found, exact, strict=True))


def test_weights_that_change_are_seen_at_the_next_call():
    network = make_network()
    folded = FoldedNetwork(network, torch.float64)
    folded(IMAGES)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(1.1)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):  # as a checkpoint's may be loaded
                layer.running_mean.add_(0.1)
                layer.running_var.mul_(1.2)
    assert_near(folded(IMAGES), network(IMAGES), 1e-7)


@pytest.mark.parametrize("num_stages", [1, 2, 3])
def test_frozen_stages_have_no_gradient_and_no_backward_pass(num_stages):
    network = make_network()
    network.backbone.freeze(num_stages)
    folded = FoldedNetwork(network, torch.float64)
    assert_near(results_of(folded, network), results_of(network, network), 1e-7)
    given = dict(folded.weights())
    frozen = network.backbone.conv1, network.backbone.layer1[0].conv1
    for layer, is_frozen in zip(frozen, (True, num_stages > 1), strict=True):
        assert given[layer][0][0].requires_grad == (not is_frozen)


def test_learned_statistics_are_not_fixed():
    network = RetinaNet(2, 18, channels=8, learn_statistics=True)
    assert not fixed_statistics(network)
    assert fixed_statistics(network.eval())


@pytest.mark.parametrize("kind", KINDS)
def test_once_for_any_number_of_forwards(kind):
    network = make_network(kind).eval()
    once = folded_once(network, torch.float64)
    assert type(once) is type(network)
    with torch.no_grad():
        wanted = network(IMAGES)
        for _ in range(2):
            assert_near(once(IMAGES), wanted, 1e-7)


def test_the_network_itself_stays_as_it_is():
    network = make_network()
    before = deepcopy(network.state_dict())
    results_of(FoldedNetwork(network, torch.float64), network)
    folded_once(network, torch.bfloat16)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_epilogues_give_the_same(kind, monkeypatch):
    network = make_network(kind)
    wanted = results_of(network, network)
    monkeypatch.setenv(SWITCH, "1")
    folded = FoldedNetwork(network, torch.float64)
    num_relus = sum(isinstance(layer, nn.ReLU) for layer in folded.network.classification_head.modules())
    assert num_relus == (4 if "group" in kind else 0)  # which stands between convolution and ReLU
    assert_near(results_of(folded, network), wanted, 1e-7)
    with torch.no_grad():
        assert_near(folded_once(network.eval(), torch.float64)(IMAGES), wanted[:2], 1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_epilogues_give_the_same(kind):
    network = make_network(kind)
    wanted = results_of(network, network)
    torch._dynamo.reset()
    compiled = torch.compile(with_epilogues(network, torch.float64), fullgraph=True, dynamic=False, backend="aot_eager")
    assert_near(results_of(compiled, network), wanted, 1e-7)

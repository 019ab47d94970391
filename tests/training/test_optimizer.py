import copy

import pytest
import torch
from support.built import small_network
from torch import nn

from retinanet.detector.settings import STAGES
from retinanet.training.optimizer import build_optimizer, rates_of_stages, set_rate

pytestmark = pytest.mark.usefixtures("narrow_network")


PLAIN = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("name", PLAIN)
def test_optimizers(name):
    optimizer = build_optimizer(nn.Linear(2, 2), name, 0.1, 0.3)
    assert isinstance(optimizer, PLAIN["adam" if name == "adamw" else name])
    assert optimizer.param_groups[0].get("decoupled_weight_decay", False) == (name == "adamw")
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert name != "sgd" or optimizer.param_groups[0]["momentum"] == 0.9


def test_the_defaults_are_one_group_in_the_order_of_the_network():
    model = small_network()
    (group,) = build_optimizer(model, "adam", 1e-4, 0.0).param_groups
    assert all(one is other for one, other in zip(group["params"], model.parameters(), strict=True))


def test_decay_spares_biases_and_norms():
    model = small_network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, "sgd", 0.1, 0.5).step()
    for name, parameter in model.named_parameters():
        is_spared = name.endswith("bias") or "bn" in name or "downsample.1" in name
        assert parameter.unique().tolist() == pytest.approx([1.0 if is_spared else 0.95]), name


def test_frozen_parameters_are_left_out():
    model = small_network()
    model.backbone.conv1.requires_grad_(False)
    groups = build_optimizer(model, "adam", 0.1, 0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 1


@pytest.mark.parametrize("shares", [[0.25] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]])
def test_shares_of_the_rate(shares):
    model = small_network()
    optimizer = build_optimizer(model, "sgd", 1.0, 0.1, shares)
    set_rate(optimizer, 0.01)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    by_stage = dict(zip(STAGES, shares, strict=True))
    for name, parameter in model.named_parameters():
        share = 1.0
        if name.startswith("backbone."):
            share = next((by_stage[stage] for stage in STAGES if stage in name), by_stage["stem"])
        assert rates[id(parameter)] == pytest.approx(0.01 * share), name


@pytest.mark.parametrize(
    ("shares", "random_stages", "wanted"),
    [
        ((1.0,), ["layer4"], [1, 1, 1, 1, 1]),
        ((0.1,), [], [0.1] * 5),
        ((0.1,), ["layer4"], [0.1, 0.1, 0.1, 0.1, 1]),
        ((0.1,), list(STAGES), [1] * 5),
        ((0.1, 0.2, 0.3, 0.4, 0.5), ["layer4"], [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_one_share_spares_what_is_random(shares, random_stages, wanted):
    assert rates_of_stages(shares, random_stages) == wanted


def test_an_optimizer_saved_without_shares_gets_the_whole_rate():
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, "adam", 0.1, 0.0)
    del optimizer.param_groups[0]["share"]
    set_rate(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5


def trained(optimizer, parameters, *, infinite=(), resumed_at=None):
    """The parameters after 6 steps, and what the optimiser has kept."""
    random = torch.Generator().manual_seed(3)
    for step in range(6):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.found_inf = torch.tensor(float(step in infinite))
        set_rate(optimizer, 0.1 / (step + 1))
        if step == resumed_at:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return [*(parameter.detach() for parameter in parameters), *kept]


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize(("infinite", "resumed_at"), [((), None), ((0, 3), None), ((4,), 3)])
def test_listed_adam_equals_pytorchs_to_the_last_bit(name, infinite, resumed_at):
    torch.manual_seed(0)
    twins = nn.Linear(7, 5), nn.Linear(7, 5)
    twins[1].load_state_dict(twins[0].state_dict())
    ours = build_optimizer(twins[0], name, 0.1, 0.3)
    groups = [
        {**group, "params": [parameter]}
        for group, parameter in zip(ours.param_groups, twins[1].parameters(), strict=True)
    ]
    sides = [
        trained(optimizer, list(twin.parameters()), infinite=infinite, resumed_at=resumed_at)
        for optimizer, twin in zip((ours, PLAIN[name](groups, fused=True)), twins, strict=True)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*sides, strict=True))


def test_listed_adam_skips_parameters_without_a_gradient():
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(layer, "adam", 0.1, 0.0)
    before = layer.bias.detach().clone()
    for _ in range(3):
        layer.weight.grad = torch.ones(2, 2)
        optimizer.step()
    assert torch.equal(layer.bias, before)

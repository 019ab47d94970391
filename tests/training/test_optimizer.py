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


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_step_whose_gradient_is_infinite_changes_nothing(name):
    """As a step asks for it on the device, without waiting for the answer."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, name, 0.1, 0.3)
    for found_inf in (1.0, 0.0, 1.0):
        before = [value.clone() for value in (*layer.parameters(), *_kept(optimizer))]
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, torch.inf if found_inf else 1.0)
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        after = [*layer.parameters(), *_kept(optimizer)]
        is_same = all(map(torch.equal, before, after))
        assert is_same == bool(found_inf)


def _kept(optimizer):
    return [value for state in optimizer.state.values() for value in state.values()]

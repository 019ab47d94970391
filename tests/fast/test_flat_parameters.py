import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from retinanet.fast.flat_parameters import ALIGNMENT, FlatParameters
from retinanet.training.optimizer import build_optimizer

OPTIMIZERS = ("adam", "adamw", "sgd")
IMAGES = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1)).split(2)  # of three calls


def network():
    """Parameters that decay and others that don't, in two groups; those of the first layer are fixed."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3, bias=False))
    made[0].requires_grad_(False)
    return made.eval().to(memory_format=torch.channels_last)


def twins(name="adam"):
    """A network with its optimiser and flat parameters, and the same without these."""
    model, other = network(), network()
    optimizer, plain = (build_optimizer(one, name, 0.1, 0.1) for one in (model, other))
    return model, optimizer, FlatParameters(optimizer), other, plain


def assert_same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda text, name=name: f"{name}: {text}")


def step(optimizer, *losses):
    optimizer.zero_grad()
    for loss in losses:
        loss.square().sum().backward()
    optimizer.step()


@given(st.lists(st.tuples(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms()), min_size=1, max_size=6))
def test_parameters_keep_their_values_and_their_order_in_memory(cases):
    parameters, wanted = [], []
    for shape, random in cases:
        order = random.sample(range(len(shape)), len(shape))
        tensor = torch.randn([shape[side] for side in order]).permute([order.index(i) for i in range(len(shape))])
        parameters.append(nn.Parameter(tensor))
        wanted.append((tensor.clone(), tensor.shape, tensor.stride()))
    (long,) = FlatParameters(torch.optim.SGD(parameters)).long
    start, taken = long.data_ptr(), 0
    for parameter, (values, shape, strides) in zip(parameters, wanted, strict=True):
        assert parameter.shape == shape
        triples = zip(parameter.stride(), strides, shape, strict=True)
        assert all(one == other for one, other, side in triples if side > 1)
        assert torch.equal(parameter, values)
        assert (parameter.data_ptr() - start) % (ALIGNMENT * long.element_size()) == 0
        assert parameter.data_ptr() - start >= taken
        taken = parameter.data_ptr() - start + parameter.numel() * long.element_size()
    assert long.count_nonzero() == sum(values.count_nonzero() for values, *_ in wanted)


def test_convolutions_stay_channels_last():
    model, _, flat, *_ = twins()
    assert len(flat.long) == 2
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[3].weight.is_contiguous()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_networks_own_parameters(name):
    model, optimizer, flat, other, plain = twins(name)
    within = flat.within(model)
    for images in IMAGES:
        step(plain, other(images))
        step(optimizer, within(images))
        assert all(parameter.grad is None for parameter in model.parameters())
        assert_same_tensors(model.state_dict(), other.state_dict())
    assert torch.equal(model[0].weight, network()[0].weight)


@pytest.mark.parametrize("both", [False, True])
def test_gradients_of_the_network_by_itself_count_too(both):
    model, optimizer, flat, other, plain = twins("sgd")
    step(plain, other(IMAGES[0]), *([other(IMAGES[1])] if both else []))
    model(IMAGES[0]).square().sum().backward()
    if both:
        flat.within(model)(IMAGES[1]).square().sum().backward()
    flat.take_gradients()
    optimizer.step()
    assert_same_tensors(model.state_dict(), other.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_without_a_gradient_have_one_of_zero():
    model, _, flat, *_ = twins()
    model[1](torch.ones(1, 4, 1, 1)).sum().backward()  # not of the other layers
    flat.take_gradients()
    weights, others = flat.long
    assert weights.grad.count_nonzero() == model[1].weight.numel()
    assert others.grad.count_nonzero() == model[1].bias.numel()
    flat.take_gradients()  # of none there is nothing to take
    assert weights.grad.count_nonzero() == model[1].weight.numel()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("saved_after", [0, 2])
def test_what_is_saved_is_as_if_nothing_was_flat(name, saved_after):
    model, optimizer, flat, other, plain = twins(name)
    for images in IMAGES[:saved_after]:
        step(plain, other(images))
        step(optimizer, flat.within(model)(images))
    saved, wanted = flat.state_dict(optimizer), plain.state_dict()
    assert saved["param_groups"] == wanted["param_groups"]
    assert saved["state"].keys() == wanted["state"].keys()
    for index, state in saved["state"].items():
        assert_same_tensors(state, wanted["state"][index])
        for value in state.values():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
    # A process that goes on from there, flat again, comes to the same bits.
    again = network()
    again.load_state_dict(model.state_dict())
    resumed = build_optimizer(again, name, 0.1, 0.1)
    resumed.load_state_dict(copy.deepcopy(saved))
    flat_again = FlatParameters(resumed)
    step(optimizer, flat.within(model)(IMAGES[2]))
    step(resumed, flat_again.within(again)(IMAGES[2]))
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_may_become_flat_on_its_way(name):
    models = [network(), network()]
    optimizers = [build_optimizer(model, name, 0.1, 0.1) for model in models]
    for optimizer, model in zip(optimizers, models, strict=True):
        step(optimizer, model(IMAGES[0]))
    flat = FlatParameters(optimizers[0])
    for images in IMAGES[1:]:
        step(optimizers[0], flat.within(models[0])(images))
        step(optimizers[1], models[1](images))
    assert_same_tensors(models[0].state_dict(), models[1].state_dict())


def test_moments_that_a_file_lacks_are_zero():
    model = network()
    optimizer = build_optimizer(model, "adam", 0.1, 0.1)
    step(optimizer, model(IMAGES[0]))
    del optimizer.state[model[1].weight]
    flat = FlatParameters(optimizer)
    first, second = (flat.state_dict(optimizer)["state"][index] for index in (0, 1))
    assert (first["exp_avg"].count_nonzero(), first["step"]) == (0, 1)
    assert second["exp_avg"].count_nonzero() > 0


def test_what_is_not_finite_is_seen_in_the_long_gradient():
    model, _, flat, *_ = twins()
    (flat.within(model)(IMAGES[0]) * math.inf).sum().backward()
    assert not flat.long[0].grad.isfinite().all()

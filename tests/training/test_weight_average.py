import pytest
import torch
from torch import nn

from retinanet.runtime.errors import UserError
from retinanet.training.weight_average import WeightAverage


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_the_average_by_hand(decay):
    model = network()
    average = WeightAverage(model, decay)
    wanted = {name: tensor.clone().double() for name, tensor in model.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(2, 3, 5, 5))  # changes the statistics too
        average.update()
        kept = min(decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                wanted[name] = kept * wanted[name] + (1 - kept) * tensor.double()
    for name, tensor in average.weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), wanted[name], rtol=1e-4, atol=1e-5)


def test_in_place_and_back_even_after_an_exception():
    model = network()
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.in_place():
        averaged = model[0].weight.clone()
    assert not torch.equal(averaged, trained["0.weight"])
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def test_another_networks_average_is_refused():
    average = WeightAverage(network(), 0.5)
    weights = {name: tensor + 1 for name, tensor in average.weights.items()}
    average.load(weights, "last.pt")
    assert torch.equal(average.weights["0.weight"], weights["0.weight"])
    for wrong in (None, {}, weights | {"0.weight": torch.zeros(1)}):
        with pytest.raises(UserError, match=r"last\.pt: its averaged weights do not fit"):
            average.load(wrong, "last.pt")

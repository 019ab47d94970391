import pytest
import torch
from torch import nn

from retinanet.training.many_tensors import clip_gradients, copies, put_back


def parameters_with_gradients(scale):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((3, 2, 3, 3), (5,), (4, 3), (2,))]
    for parameter in parameters[:3]:  # the last is frozen
        parameter.grad = scale * torch.randn_like(parameter)
    return parameters


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, torch.inf, torch.nan])
def test_gradients_are_clipped_as_pytorch_does(scale):
    ours, theirs = parameters_with_gradients(scale), parameters_with_gradients(scale)
    norms = clip_gradients(ours, 0.1), nn.utils.clip_grad_norm_(theirs, 0.1)
    torch.testing.assert_close(*norms, rtol=0, atol=0, equal_nan=True)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, equal_nan=True)
    assert ours[3].grad is None


@pytest.mark.parametrize("is_bad", [True, False])
def test_statistics_are_put_back_where_a_step_was_bad(is_bad):
    statistics = [torch.arange(3.0), torch.ones(5)]
    before = copies(statistics)
    statistics[0][1], statistics[1][2] = torch.nan, 7
    after = [tensor.clone() for tensor in statistics]
    put_back(statistics, before, torch.tensor(is_bad))
    for tensor, old, new in zip(statistics, before, after, strict=True):
        torch.testing.assert_close(tensor, old if is_bad else new, rtol=0, atol=0, equal_nan=True)


def test_no_tensors_are_no_trouble():
    put_back([], copies([]), torch.tensor(True))

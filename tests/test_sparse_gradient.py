import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinanet.sparse_gradient import SparseGradientConv2d


def gradients(convolution, features, gradient):
    features = features.clone().requires_grad_()
    convolution.zero_grad()
    convolution(features).backward(gradient)
    return features.grad, convolution.weight.grad, convolution.bias.grad


def both(features, gradient):
    sparse = SparseGradientConv2d(features.shape[1], gradient.shape[1], 3, padding=1)
    dense = nn.Conv2d(features.shape[1], gradient.shape[1], 3, padding=1)
    dense.load_state_dict(sparse.state_dict())
    return gradients(sparse, features, gradient), gradients(dense, features, gradient)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_gradients_are_those_of_the_dense_convolution(seed, num_images, height, width, share):
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(num_images, 4, height, width, generator=draw)
    gradient = torch.randn(num_images, 5, height, width, generator=draw)
    gradient *= torch.rand(num_images, 1, height, width, generator=draw) < share
    for got, wanted in zip(*both(features, gradient), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("row", [0, 3, 5])
@pytest.mark.parametrize("column", [0, 2, 6])
def test_one_cell_at_every_border(row, column):
    gradient = torch.zeros(2, 3, 6, 7)
    gradient[1, :, row, column] = 1
    for got, wanted in zip(*both(torch.randn(2, 4, 6, 7), gradient), strict=True):
        torch.testing.assert_close(got, wanted)


def test_what_is_not_finite_is_not_lost():
    gradient = torch.zeros(1, 3, 6, 7)
    gradient[0, 1, 2, 3] = float("nan")
    (features_gradient, weight_gradient, _), _ = both(torch.randn(1, 4, 6, 7), gradient)
    assert features_gradient.isnan().any()
    assert weight_gradient.isnan().any()

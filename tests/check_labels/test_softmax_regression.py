import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retinanet.check_labels.softmax_regression import RIDGE, fit


@pytest.fixture
def samples():
    draw = np.random.default_rng(0)
    kinds = draw.integers(3, size=400)
    return draw.normal(size=(400, 2)) + np.array([[0, 0], [3, 0], [0, 3]])[kinds], kinds, draw.uniform(0.2, 2, 400)


def test_the_weights_are_where_the_gradient_is_zero(samples):
    features, kinds, sample_weights = samples
    regression = fit(features, kinds, sample_weights)
    weights = torch.tensor(regression.weights, requires_grad=True)
    inputs = torch.tensor((features - regression.means) / regression.deviations)
    logits = inputs @ weights[:-1] + weights[-1]
    loss = (F.cross_entropy(logits, torch.tensor(kinds), reduction="none") * torch.tensor(sample_weights)).sum()
    (loss + RIDGE / 2 * weights[:-1].square().sum()).backward()
    assert weights.grad[:-1].abs().max() < 1e-3


def test_a_sample_of_weight_two_counts_like_two(samples):
    features, kinds, _ = samples
    ones = np.ones(len(kinds))
    twice = fit(np.concatenate([features, features]), np.concatenate([kinds, kinds]), np.concatenate([ones, ones]))
    assert np.allclose(twice.weights, fit(features, kinds, 2 * ones).weights, atol=1e-6)


def test_probabilities_are_those_of_the_samples_and_a_kind_without_samples_has_none(samples):
    features, kinds, _ = samples
    probabilities = fit(features, kinds * 2, np.ones(len(kinds))).probabilities(features, 6)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, [1, 3, 5]] == 0).all()
    assert np.allclose(probabilities[:, [0, 2, 4]].mean(axis=0), np.bincount(kinds) / len(kinds), atol=0.01)
    assert (probabilities.argmax(axis=1) == kinds * 2).mean() > 0.9


def test_separable_samples_end():
    features = np.linspace(-1, 1, 20)[:, None]
    regression = fit(features, (features[:, 0] > 0).astype(int), np.ones(20))
    assert (regression.probabilities(features, 2).argmax(axis=1) == (features[:, 0] > 0)).all()

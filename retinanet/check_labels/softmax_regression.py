"""Estimates each kind's probability for a sample by multinomial logistic regression, fitted with Newton's method."""

from typing import NamedTuple

import numpy as np

RIDGE = 1.0  # the penalty on the weights of the standardised features
MOST_STEPS = 50
SMALL_STEP = 1e-5


class Regression(NamedTuple):
    """A fitted regression of K kinds on F features."""

    kinds: np.ndarray  # int64 [K], the kinds that had samples
    means: np.ndarray  # [F]
    deviations: np.ndarray  # [F]
    weights: np.ndarray  # [F + 1, K], the last row is the bias

    def probabilities(self, features: np.ndarray, num_kinds: int) -> np.ndarray:
        """Returns the probability of each kind, [n, num_kinds], for `features` [n, F]."""
        probabilities = np.zeros((len(features), num_kinds))
        probabilities[:, self.kinds] = _softmax(_standardised(features, self.means, self.deviations) @ self.weights)
        return probabilities


def fit(features: np.ndarray, kinds: np.ndarray, sample_weights: np.ndarray) -> Regression:
    """Fits a regression of `kinds` [n] on `features` [n, F]; a sample of weight 2 counts as two samples."""
    present, targets = np.unique(kinds, return_inverse=True)
    means, deviations = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = _standardised(features, means, deviations)
    wanted = np.eye(len(present))[targets]
    ridge = np.append(np.full(features.shape[1], RIDGE), 1e-3)[:, None]  # the bias is hardly penalised

    def loss(weights: np.ndarray) -> float:
        likelihoods = (_softmax(inputs @ weights) * wanted).sum(axis=1)
        fault = -(sample_weights * np.log(likelihoods.clip(1e-300))).sum()
        return float(fault + (ridge * weights**2).sum() / 2)

    weights = np.zeros((inputs.shape[1], len(present)))
    now = loss(weights)
    for _ in range(MOST_STEPS):
        probabilities = _softmax(inputs @ weights)
        gradient = inputs.T @ ((probabilities - wanted) * sample_weights[:, None]) + ridge * weights
        step = _newton_step(inputs, probabilities, sample_weights, gradient, ridge)
        while (after := loss(weights - step)) > now and np.abs(step).max() > SMALL_STEP:
            step = step / 2
        weights, now = weights - step, after
        if np.abs(step).max() <= SMALL_STEP:
            break
    return Regression(present, means, deviations, weights)


def _newton_step(
    inputs: np.ndarray, probabilities: np.ndarray, sample_weights: np.ndarray, gradient: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    num_inputs, num_kinds = gradient.shape
    hessian = np.zeros((num_kinds, num_inputs, num_kinds, num_inputs))
    for first in range(num_kinds):
        for second in range(num_kinds):
            curvature = probabilities[:, first] * ((first == second) - probabilities[:, second]) * sample_weights
            hessian[first, :, second] = inputs.T @ (inputs * curvature[:, None])
    square = hessian.reshape(num_kinds * num_inputs, -1) + np.diag(np.tile(ridge[:, 0], num_kinds))
    return np.linalg.solve(square, gradient.T.reshape(-1)).reshape(num_kinds, num_inputs).T


def _standardised(features: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    return np.concatenate([(features - means) / deviations, np.ones((len(features), 1))], axis=1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

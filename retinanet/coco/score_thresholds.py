"""Which scores are above a threshold: both are compared in float32, in which the network gives its scores."""

import math

import numpy as np

USUAL_THRESHOLD = 0.3  # where no evaluation has found a better one


def above(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each score is kept, bool as `scores`: in float32 it exceeds the threshold. None exceeds NaN."""
    return scores.astype(np.float32) > np.float32(threshold)


def threshold_below(score: float) -> float:
    """The largest float32 below `score`: as a threshold it keeps this score, and none that is lower."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def saved_threshold(number: float) -> float:
    """The threshold that a checkpoint or an ONNX file means by `number`.

    Earlier versions saved the largest float64 below a score, which float32 rounds up to that score. It becomes the
    largest float32 below the score.
    """
    score = math.nextafter(number, math.inf)
    return threshold_below(score) if score == float(np.float32(score)) else number


def threshold_text(threshold: float) -> str:
    """The fewest decimals that give the same float32 when they are typed back; "-" for NaN."""
    return "-" if math.isnan(threshold) else str(np.float32(threshold)).removesuffix(".0")

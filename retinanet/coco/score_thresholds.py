"""Compares scores with thresholds in float32, the precision of the network's scores."""

import math

import numpy as np

USUAL_THRESHOLD = 0.3  # used if no evaluation has determined a better threshold


def above(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Returns a bool mask, shaped like `scores`: True where a score exceeds the threshold, both rounded to float32.

    `threshold` is a number for all scores, or an array with one for each. No score exceeds a threshold of NaN.
    """
    return scores.astype(np.float32) > np.asarray(threshold, np.float32)


def threshold_below(score: float) -> float:
    """Returns the largest float32 below `score`: the threshold that keeps this score and drops all lower scores."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def saved_threshold(number: float) -> float:
    """Returns the threshold that a checkpoint or an ONNX file stores as `number`.

    Earlier versions stored the largest float64 below a score, which becomes the score itself when rounded to float32.
    Such a number is replaced by the largest float32 below the score.
    """
    score = math.nextafter(number, math.inf)
    return threshold_below(score) if score == float(np.float32(score)) else number


def threshold_text(threshold: float) -> str:
    """Formats a threshold with the fewest digits that parse to the same float32; "-" for NaN."""
    return "-" if math.isnan(threshold) else str(np.float32(threshold)).removesuffix(".0")

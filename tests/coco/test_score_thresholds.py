import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.coco.score_thresholds import above, saved_threshold, threshold_below, threshold_text
from retinanet.detector.detect import suppress
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates

SCORES = st.floats(0, 1, width=32, exclude_min=True)
SIZES = torch.tensor([[8, 8]])


def detected(score, threshold):
    """Whether the network's post-processing keeps a box of this score."""
    candidates = Candidates(torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[score]]), torch.tensor([[0]]))
    return bool(suppress(candidates, SIZES, DetectionSettings(threshold)).labels[0, 0] == 0)


@given(SCORES)
def test_a_threshold_just_below_a_score_keeps_it_and_no_lower_one(score):
    threshold = threshold_below(score)
    lower = float(np.nextafter(np.float32(score), np.float32(0)))
    for number in (threshold, float(threshold_text(threshold)), saved_threshold(threshold)):
        assert above(np.array([score, lower]), number).tolist() == [True, False]
        assert detected(score, number)
        assert not detected(lower, number)


@given(SCORES)
def test_thresholds_that_earlier_versions_saved_keep_the_score_that_set_them(score):
    """They saved the next lower float64, which is the score itself in float32."""
    saved = math.nextafter(score, 0)
    assert not above(np.array([score]), saved).any()
    assert saved_threshold(saved) == threshold_below(score)


@given(SCORES, st.floats(0, 1))
def test_arrays_and_tensors_are_compared_alike(score, threshold):
    """In float32, whatever decimals the user types."""
    assert above(np.array([score]), threshold)[0] == detected(score, threshold) == (score > np.float32(threshold))


@pytest.mark.parametrize(("number", "text"), [(0.05, "0.05"), (0.3, "0.3"), (1, "1"), (0, "0"), (math.nan, "-")])
def test_texts(number, text):
    assert threshold_text(number) == text


@pytest.mark.parametrize("number", [0.0, 0.05, 0.25, 0.3, 1.0])
def test_other_saved_thresholds_stay(number):
    assert saved_threshold(number) == number


def test_no_score_exceeds_an_unknown_threshold():
    assert not above(np.array([0.0, 1.0]), math.nan).any()

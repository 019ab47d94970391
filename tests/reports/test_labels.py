import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retinanet.reports.labels import place_labels

SIZE = np.array([30.0, 10.0])


def shared(one, other):
    overlap = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    return overlap.clip(min=0).prod()


@pytest.mark.parametrize(
    ("boxes", "places"),
    [
        ([[20, 40, 50, 50]], [[20, 30]]),  # above its left corner
        ([[0, 0, 100, 100]], [[0, -10]]),  # over the image's edge rather than on the object
        ([[90, 40, 10, 20]], [[70, 30]]),  # not over the image's side
        ([[20, 40, 50, 50], [20, 20, 50, 20]], [[20, 90], [20, 10]]),  # below, as above is another object
        ([[20, 40, 50, 50], [20, 40, 50, 50]], [[20, 30], [20, 90]]),  # two of one place
        ([], np.zeros((0, 2))),
    ],
)
def test_places(boxes, places):
    boxes = np.array(boxes, float).reshape(-1, 4)
    assert np.array_equal(place_labels(boxes, np.tile(SIZE, (len(boxes), 1)), 100), places)


@given(arrays(float, (5, 4), elements=st.floats(1, 60)))
def test_labels_touch_their_box_and_stay_between_the_sides(boxes):
    places = place_labels(boxes, np.tile(SIZE, (5, 1)), 120)
    for box, place in zip(boxes, places, strict=True):
        assert 0 <= place[0] <= 120 - SIZE[0]
        assert box[1] - SIZE[1] - 1e-9 <= place[1] <= box[1] + box[3] + 1e-9
        # One that is alone covers nothing at all.
        assert shared(np.concatenate([place_labels(box[None], SIZE[None], 120)[0], SIZE]), box) < 1e-9

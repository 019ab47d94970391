"""The score of a box: the mean gradient across its sides, compared with a slow, literal reference."""

import numpy as np
import pytest
from PIL import Image

from retinanet.data.edges import BLUR, edges_of, scores_of_boxes, straightness


def picture(seed=0, height=96, width=128):
    """A picture that needs no resize to have the longer side of 256 pixels."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 255, (height // 16, width // 16), dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    grey = (blocks.astype(int) * 3 // 4 + draw.integers(0, 20, blocks.shape)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def score_by_loops(image, corners):
    """The score of one box, side by side, pixel by pixel, from the grey values; None if it has none."""
    grey = np.asarray(Image.fromarray(image).convert("L").filter(BLUR), float)
    height, width = grey.shape
    across, below = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    mean = (across.mean() + below.mean()) / 2
    across, below = np.minimum(across / mean, 4), np.minimum(below / mean, 4)
    x1, y1, x2, y2 = corners * np.array([width, height, width, height])
    if x2 <= x1 or y2 <= y1:
        return 0.0
    sides = []
    for gradients, line, start, end, extent in (
        *((across, line, y1, y2, x2 - x1) for line in (x1, x2)),
        *((below.T, line, x1, x2, y2 - y1) for line in (y1, y2)),
    ):
        length, num_lines = gradients.shape
        if line < -0.02 * (num_lines + 1) or line > 1.02 * (num_lines + 1) or start >= length or end <= 0:
            sides.append(0.0)
            continue
        place = round(line) - 1
        if not 0 <= place < num_lines:
            continue
        first, stop = (int(min(max(round(value), 0), length)) for value in (start, end))
        first = first - 1 if first == stop else first
        reach = max(1, int(0.03 * extent))
        means = [
            gradients[first:stop, place + offset].mean()
            for offset in range(-reach, reach + 1)
            if 0 <= place + offset < num_lines
        ]
        sides.append(max(means))
    return sum(sides) / len(sides) if len(sides) >= 2 else None


def test_scores_equal_those_of_loops():
    image, draw = picture(), np.random.default_rng(1)
    starts = draw.uniform(-0.3, 1.1, (300, 2))
    boxes = np.concatenate([starts, starts + draw.uniform(-0.05, 0.7, (300, 2))], axis=1)
    borders = [
        [0, 0, 1, 1],
        [0, 0, 0.5, 0.5],
        [0.2, 0, 0.4, 1],
        [-0.01, 0.3, 1.01, 0.6],
        [2, 2, 3, 3],
        [0.5, 0.5, 0.5, 0.6],
    ]
    boxes = np.concatenate([boxes, borders])
    expected = [score_by_loops(image, box) for box in boxes]
    scores = scores_of_boxes(edges_of(image), boxes)
    assert scores == pytest.approx([np.nan if each is None else each for each in expected], rel=1e-4, nan_ok=True)
    assert sum(each is None for each in expected) == 1  # the whole picture
    assert sum(each == 0 for each in expected) > 10


def test_pictures_of_any_size_and_colour():
    assert edges_of(np.zeros((1, 5000, 3), np.uint8)).size == (2, 256)
    assert edges_of(np.zeros((30, 30, 3), np.uint8)).size == (256, 256)
    flat = edges_of(np.full((480, 640, 3), 77, np.uint8))
    assert scores_of_boxes(flat, np.array([[0.1, 0.1, 0.5, 0.5]])).tolist() == [0]
    assert scores_of_boxes(flat, np.zeros((0, 4))).shape == (0,)


def test_a_box_on_its_object_scores_more_than_beside_it():
    image = np.full((300, 400, 3), 90, np.uint8)
    image[60:160, 80:200] = 200
    on, beside = scores_of_boxes(edges_of(image), np.array([[0.2, 0.2, 0.5, 160 / 300], [0.3, 0.2, 0.6, 160 / 300]]))
    assert on == pytest.approx(4)
    assert beside < 2.5


def test_noise_has_no_straight_edges():
    noise = np.random.default_rng(0).integers(0, 255, (200, 256, 3), dtype=np.uint8)
    assert straightness(edges_of(noise)) < 0.3
    assert straightness(edges_of(picture())) > 0.4
    assert straightness(edges_of(np.asarray(Image.new("RGB", (256, 200))))) == 0

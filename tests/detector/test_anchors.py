import math

import pytest
import torch
from support.built import small_network

from retinanet.detector.anchors import DEFAULT_SHAPES, AnchorShapes, anchors_for

CPU = torch.device("cpu")


def slow_anchors(height, width, side=4, ratios=(0.5, 1, 2), scales=(1, 2 ** (1 / 3), 2 ** (2 / 3))):
    """Anchor by anchor, as the paper says it."""
    found = []
    for stride in (8, 16, 32, 64, 128):
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for ratio in ratios:
                    for scale in scales:
                        area = (side * stride * scale) ** 2
                        w = math.sqrt(area / ratio)
                        h = w * ratio
                        found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return torch.tensor(found)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (608, 832), (33, 70), (40, 1100)])
def test_equal_their_slow_twin(height, width):
    torch.testing.assert_close(anchors_for(height, width, CPU), slow_anchors(height, width))


def test_those_of_other_shapes_equal_their_slow_twin():
    shapes = AnchorShapes(3, (1 / 3, 1.0), (0.5, 1.0, 1.7))
    assert shapes.per_cell == 6
    torch.testing.assert_close(anchors_for(64, 96, CPU, shapes), slow_anchors(64, 96, *shapes))
    assert not torch.equal(anchors_for(64, 96, CPU, shapes), anchors_for(64, 96, CPU, shapes._replace(side=4)))
    assert DEFAULT_SHAPES == (4, (0.5, 1, 2), (1, 2 ** (1 / 3), 2 ** (2 / 3)))


def test_first_square_anchor_by_hand():
    assert anchors_for(64, 64, CPU)[3].tolist() == [-12, -12, 20, 20]


def test_anchors_are_made_once_per_size():
    assert anchors_for(64, 96, CPU) is anchors_for(64, 96, CPU)
    assert anchors_for(96, 64, CPU) is not anchors_for(64, 96, CPU)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160), (33, 70), (1, 1)])
def test_one_for_each_prediction(height, width):
    for shapes in (DEFAULT_SHAPES, AnchorShapes(4, (1.0,), (1.0, 1.5))):
        network = small_network(anchors=shapes).eval()
        predictions = network(torch.zeros(1, 3, height, width, dtype=torch.uint8))
        assert predictions.deltas.shape == (1, len(anchors_for(height, width, CPU, shapes)), 4)

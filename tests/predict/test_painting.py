import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from retinanet.coco.results import Found
from retinanet.predict.painting import painted
from retinanet.reports.labels import class_colour


def pixels_of(boxes, labels=None, size=(160, 200)):
    """A grey image [h, w, 3] of `size` with the boxes (left, top, width, height) of falling scores painted into it."""
    boxes, labels = np.array(boxes, float), np.array(labels or range(len(boxes)))
    found = Found(np.zeros(len(boxes), int), labels, np.linspace(0.9, 0.5, len(boxes)), boxes)
    image = torch.full((3, *size), 100, dtype=torch.uint8)
    return np.asarray(painted(image, found, [f"class {label}" for label in range(3)]))


def colour(label):
    return [round(255 * part) for part in to_rgb(class_colour(label))]


def test_of_boxes_in_one_place_the_surest_is_on_top():
    pixels = pixels_of([[50, 40, 100, 80]] * 3, labels=[2, 0, 1])
    assert pixels[80, 51].tolist() == pixels[80, 148].tolist() == colour(2)
    assert pixels[80, 100].tolist() == [100, 100, 100]  # a box is not filled


def test_a_box_past_the_border_is_drawn_along_it():
    pixels = pixels_of([[-30, -20, 260, 210]])
    assert pixels[80, 1].tolist() == pixels[80, 198].tolist() == pixels[158, 100].tolist() == colour(0)


@pytest.mark.parametrize("box", [[20.2, 30.2, 0.1, 0.1], [199.9, 159.9, 0.1, 0.1], [50, 40, 0.1, 60]])
def test_a_box_of_less_than_a_pixel_is_seen(box):
    pixels = pixels_of([box])
    left, top = (min(round(start), side - 1) for start, side in zip(box[:2], (200, 160), strict=True))
    assert pixels[top, left].tolist() != [100, 100, 100]


@pytest.mark.parametrize("box", [[0, 0, 200, 160], [40, 155, 60, 5]])
def test_a_name_stays_in_the_picture(box):
    """The box of the whole image has its name above it, where no pixels are."""
    pixels = pixels_of([box])
    found = (pixels == colour(0)).all(axis=2)
    assert found.sum(axis=1).max() > 30
    assert (found.sum(axis=1) > 12).sum() >= 8  # the rows of the name, not only those of lines


def test_without_detections_the_picture_is_the_image():
    assert (pixels_of(np.zeros((0, 4)), labels=[0][:0]) == 100).all()

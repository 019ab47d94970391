"""Each reading gives back the box from what a file holds; those of orientations are what EXIF does."""

import numpy as np
import pytest
from support.readings import FILE_BOXES

from retinanet.coco.boxes import turned_boxes
from retinanet.data.box_readings import READINGS, orientation_reading, read_boxes
from retinanet.settings.convert import BOX_READINGS

BOX, WIDTH, HEIGHT = [30.0, 20.0, 40.0, 24.0], 160, 100


def test_each_reading_is_defined_here_and_offered():
    assert set(FILE_BOXES) == set(READINGS) == set(BOX_READINGS)


@pytest.mark.parametrize("name", BOX_READINGS)
def test_a_reading_gives_the_box(name):
    held = np.array([FILE_BOXES[name](*BOX, WIDTH, HEIGHT)] * 2)
    sizes = np.array([[HEIGHT, WIDTH]] * 2)
    assert read_boxes(name, held, sizes).tolist() == [pytest.approx(BOX)] * 2
    assert read_boxes(name, held[:0], sizes[:0]).shape == (0, 4)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 8])
def test_the_reading_of_an_orientation_turns_boxes_as_exif_does(orientation):
    boxes, sizes = np.array([BOX]), np.array([[HEIGHT, HEIGHT]])  # square: the size doesn't tell
    turned = turned_boxes(boxes, np.array([orientation]), sizes)
    assert read_boxes(orientation_reading(orientation), boxes, sizes) == pytest.approx(turned)


def test_other_orientations_have_no_reading():
    assert orientation_reading(1) == orientation_reading(7) == ""

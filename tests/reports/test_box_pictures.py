import numpy as np
import pytest
from matplotlib.colors import to_rgb

from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.figures import save_figure
from retinanet.reports.labels import PALETTE, class_colour, text_colour


def contrast(colour, other):
    """WCAG's contrast ratio."""
    parts = [np.array(to_rgb(one)) for one in (colour, other)]
    linear = [np.where(one <= 0.04045, one / 12.92, ((one + 0.055) / 1.055) ** 2.4) for one in parts]
    bright = sorted(float(one @ [0.2126, 0.7152, 0.0722]) for one in linear)
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def test_colours_of_classes():
    assert len({class_colour(label) for label in range(10)}) == 10
    assert class_colour(79) in PALETTE


@pytest.mark.parametrize("colour", [*PALETTE, "#000000", "#ffffff", "#f7fbff", "#08306b"])
def test_text_is_read_on_any_colour(colour):
    assert contrast(colour, text_colour(colour)) >= 4.5


def test_boxes_names_and_scores_are_drawn(tmp_path):
    image = np.full((60, 80, 3), 128, np.uint8)
    boxes = np.array([[10.0, 20, 30, 25]])
    panels = [
        Panel("objects", image, boxes, np.array([1]), None),
        Panel("found", image, boxes, np.array([0]), np.array([0.876])),
        Panel("nothing", image, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)),
    ]
    figure = draw_grid(panels, ["cat", "dog"], columns=2)
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts == [["dog"], ["cat 0.88"], [], []]
    rectangle = figure.axes[0].patches[0]
    assert (rectangle.get_xy(), rectangle.get_width(), rectangle.get_height()) == ((10, 20), 30, 25)
    assert figure.axes[0].patches[0].get_edgecolor() != figure.axes[1].patches[0].get_edgecolor()
    save_figure(figure, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000

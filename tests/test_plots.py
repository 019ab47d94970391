import numpy as np
import pytest

from retinanet.plots import Panel, class_colours, draw_grid, save_figure


@pytest.mark.parametrize("num_classes", [1, 5, 10, 80])
def test_each_class_has_a_colour_of_its_own(num_classes):
    colours = class_colours(num_classes)
    assert colours.shape == (num_classes, 3)
    assert len(np.unique(colours.round(4), axis=0)) == num_classes


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

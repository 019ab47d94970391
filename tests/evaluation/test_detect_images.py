import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.tiles import tile_corners
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Candidates
from retinanet.evaluation.detect_images import Looks, detect_images, moved, without_cut_off
from retinanet.evaluation.views import Views
from retinanet.settings.shared import Tiles


@settings(deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.integers(8, 120), overlap=st.floats(0, 0.9))
def test_tiles_cover_the_image_and_overlap(height, width, side, overlap):
    corners = tile_corners((height, width), Tiles(side, overlap))

    if max(height, width) <= side:
        assert corners == []
        return
    covered = np.zeros((height, width), bool)
    for top, left in corners:
        assert 0 <= top <= max(0, height - side)
        assert 0 <= left <= max(0, width - side)
        covered[top : top + side, left : left + side] = True
    assert covered.all()
    for starts in zip(*corners, strict=True):
        gaps = np.diff(sorted(set(starts)))
        assert (gaps <= max(1, side * (1 - overlap)) + 1).all()  # one pixel of rounding


@pytest.mark.parametrize(
    ("box", "is_kept"),
    [
        ((110, 110, 130, 130), True),
        ((100, 110, 130, 130), False),  # at the left edge, inside the image
        ((110, 100.5, 130, 130), False),
        ((110, 110, 200, 130), False),
        ((110, 110, 130, 199.5), False),
    ],
)
def test_what_an_inner_edge_cuts_off_is_dropped(box, is_kept):
    kept = without_cut_off(torch.tensor([box], dtype=torch.float32), (100, 100), Tiles(100, 0.2), (400, 400))

    assert kept.tolist() == [is_kept]


def test_at_the_border_of_the_image_nothing_is_cut_off():
    boxes = torch.tensor([[0.0, 0.0, 50.0, 50.0], [350.0, 350.0, 400.0, 400.0]])

    assert without_cut_off(boxes[:1], (0, 0), Tiles(100, 0.2), (400, 400)).all()
    assert without_cut_off(boxes[1:], (300, 300), Tiles(100, 0.2), (400, 400)).all()


def squares_of_some_size(images: torch.Tensor, sizes: torch.Tensor) -> Candidates:
    """A look that finds white squares of at least 12 pixels, as a network misses what is smaller than its cells."""
    boxes = torch.zeros(len(images), 50, 4)
    scores = torch.zeros(len(images), 50)
    for row, image in enumerate(images):
        white = (image[0] > 200).numpy()
        count = 0
        while white.any() and count < 50:
            y, x = np.argwhere(white)[0]
            right = x + int(np.argmin(np.append(white[y, x:], False)))
            bottom = y + int(np.argmin(np.append(white[y:, x], False)))
            white[y:bottom, max(0, x - 3) : right + 3] = False
            if min(right - x, bottom - y) >= 12:
                boxes[row, count], scores[row, count] = torch.tensor([x, y, right, bottom]), 0.9
                count += 1
    return Candidates(boxes, scores, torch.zeros(len(images), 50, dtype=torch.int64))


def test_small_objects_in_a_large_image_are_found_in_tiles_and_large_ones_as_a_whole():
    image = torch.full((3, 512, 512), 100, dtype=torch.uint8)
    places = [(x, y) for x in (20, 150, 250, 400) for y in (30, 130, 260, 450)]  # some at the edges of tiles
    for x, y in places:
        image[:, y : y + 16, x : x + 16] = 255
    image[:, 300:430, 290:390] = 255  # larger than the overlap
    cpu = torch.device("cpu")
    looks = Looks(Views([(128, 128)]), DetectionSettings(0.5), 4)

    whole = detect_images(squares_of_some_size, [image], looks, cpu)
    tiled = detect_images(
        squares_of_some_size, [image], looks._replace(views=looks.views._replace(tiles=Tiles(128, 0.25))), cpu
    )

    assert len(whole.scores) == 1
    assert len(tiled.scores) == len(places) + 1
    wanted = [[x, y, 16, 16] for x, y in places] + [[290, 300, 100, 130]]
    for box in wanted:
        assert np.abs(tiled.boxes - box).max(axis=1).min() <= 4, box


@pytest.mark.parametrize("corner", [(0, 100), (100, 0), (300, 100), (100, 300)])
def test_a_tile_at_a_border_has_inner_edges_at_its_other_sides(corner):
    """Boxes that touch one side of the tile each, left, top, right and bottom."""
    (top, left), size = corner, (400, 400)
    sides = [(0, 40, 20, 60), (40, 0, 60, 20), (80, 40, 100, 60), (40, 80, 60, 100)]
    boxes = torch.tensor(sides, dtype=torch.float32) + torch.tensor([left, top, left, top])
    kept = without_cut_off(boxes, corner, Tiles(100, 0.2), size)
    assert kept.tolist() == [left == 0, top == 0, left == 300, top == 300]


def test_in_small_tiles_a_pixel_from_the_edge_is_cut_off():
    box = torch.tensor([[100.9, 110, 115, 115]])  # a hundredth of the side is a third of a pixel
    assert not without_cut_off(box, (100, 100), Tiles(32, 0.2), (400, 400)).any()


def test_the_larger_a_box_the_sooner_it_is_cut_off():
    """The edges of these boxes lie 5 pixels inside the tile's left edge."""
    boxes = torch.tensor([[105.0, 150, 125, 170], [105, 150, 145, 190], [105, 150, 165, 210]])
    assert without_cut_off(boxes, (100, 100), Tiles(250, 0.2), (400, 400)).tolist() == [True, True, False]


def test_without_an_overlap_only_what_reaches_the_edge_is_cut_off():
    """No neighbouring tile shows an object near the edge."""
    boxes = torch.tensor([[100.9, 110, 115, 115], [100, 110, 115, 115], [150, 110, 200, 115]])
    assert without_cut_off(boxes, (100, 100), Tiles(100, 0.0), (400, 400)).tolist() == [True, False, False]


def test_an_image_as_large_as_a_tile_is_not_cut():
    assert tile_corners((96, 96), Tiles(96, 0.2)) == []
    assert tile_corners((97, 96), Tiles(96, 0.2)) == [(0, 0), (1, 0)]


def test_the_boxes_of_a_tile_are_moved_to_its_place_each_axis_by_its_scale():
    candidates = Candidates(torch.tensor([[[4.0, 4, 8, 8]]]), torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64))
    boxes = moved(candidates, torch.tensor([2.0, 4.0]), (10, 20)).boxes  # (vertical, horizontal), (top, left)
    assert boxes.tolist() == [[[21, 12, 22, 14]]]

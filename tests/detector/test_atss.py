import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, anchors_for, level_shapes
from retinanet.detector.atss import levels_of, match_atss, nearest_cells
from retinanet.detector.loss import assign_targets
from retinanet.detector.settings import LossSettings
from retinanet.detector.structures import Targets

CPU = torch.device("cpu")


def slow_atss(boxes, height, width, shapes=DEFAULT_SHAPES):
    """Object by object and level by level, as the paper's algorithm 1: the foreground anchors with their objects."""
    anchors, per_cell = anchors_for(height, width, CPU, shapes), shapes.per_cell
    taken = {}  # anchor: (IoU, object)
    for number, box in enumerate(boxes):
        centre = (box[:2] + box[2:]) / 2
        candidates, centres, first = [], [], 0
        for stride in STRIDES:
            rows, columns = -(-height // stride), -(-width // stride)
            cells = [
                [(column + 0.5) * stride, (row + 0.5) * stride] for row in range(rows) for column in range(columns)
            ]
            distances = ((centre - torch.tensor(cells)) ** 2).sum(dim=1)
            nearest = distances.argsort(stable=True)[:9].tolist()
            for cell in nearest:
                candidates += range(first + cell * per_cell, first + (cell + 1) * per_cell)
                centres += [cells[cell]] * per_cell
            first += len(cells) * per_cell
        ious = box_iou(box[None], anchors[candidates])[0]
        threshold = (ious.double().mean() + ious.double().std()).item()
        x1, y1, x2, y2 = box.tolist()
        for anchor, (x, y), overlap in zip(candidates, centres, ious.tolist(), strict=True):
            inside = x1 < x < x2 and y1 < y < y2
            if overlap >= threshold and inside and overlap > taken.get(anchor, (0, None))[0]:
                taken[anchor] = overlap, number
    return {anchor: number for anchor, (_, number) in taken.items()}


def found_in(matches, image):
    assert torch.equal(matches.background, ~matches.foreground)  # nothing is ignored
    rows = matches.foreground[image].nonzero().squeeze(1).tolist()
    return {row: int(matches.objects[image, row]) for row in rows}


def targets_of(*images):
    most = max(1, *map(len, images))
    boxes, labels = torch.zeros(len(images), most, 4), torch.full((len(images), most), -1)
    for row, image in enumerate(images):
        boxes[row, : len(image)] = torch.tensor(image).float().view(-1, 4)
        labels[row, : len(image)] = 0
    return Targets(boxes, labels)


def assert_equals_slow(height, width, *images, shapes=DEFAULT_SHAPES):
    targets = targets_of(*images)
    matches = match_atss(anchors_for(height, width, CPU, shapes), targets, (height, width))
    for row, image in enumerate(images):
        assert found_in(matches, row) == slow_atss(targets.boxes[row, : len(image)], height, width, shapes)
    return matches


whole = st.tuples(*[st.integers(0, 256)] * 4)
fine = st.tuples(*[st.floats(0, 256, width=32)] * 4)
box = st.one_of(whole, fine).map(lambda four: (*map(min, four[:2], four[2:]), *map(max, four[:2], four[2:])))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([(32, 32), (32, 256), (256, 64), (96, 160), (160, 128), (20, 50)]),
    st.lists(st.lists(box, max_size=4), min_size=1, max_size=3),
)
def test_equals_its_slow_twin(size, images):
    """Centres at whole pixels lie on the borders of cells, as far from one as from the other."""
    height, width = size
    limits = torch.tensor([width, height, width, height])
    images = [[torch.tensor(one).minimum(limits).tolist() for one in image] for image in images]
    assert_equals_slow(height, width, *images)


@pytest.mark.parametrize("shapes", [AnchorShapes(4, (1.0,), (1.0,)), AnchorShapes(3, (0.3, 1.0, 3.0, 5.0), (1.0, 1.4))])
def test_equals_its_slow_twin_for_other_anchors(shapes):
    draw = torch.Generator().manual_seed(0)
    starts = torch.rand(12, 2, generator=draw) * 150
    boxes = torch.cat([starts, starts + 10 + torch.rand(12, 2, generator=draw) * 90], dim=1)
    assert assert_equals_slow(160, 192, boxes.tolist(), shapes=shapes).foreground.any()


@pytest.mark.parametrize(("height", "width"), [(32, 1600), (1600, 32), (160, 1600), (300, 300)])
def test_grids_of_few_rows_or_columns_and_all_borders(height, width):
    draw = torch.Generator().manual_seed(0)
    limits = torch.tensor([width, height])
    centres = torch.rand(18, 2, generator=draw) * limits
    centres[:8] = (centres[:8] / 64).round() * 64  # on the corners of cells
    centres[8:12] = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]) * limits
    sizes = torch.rand(18, 2, generator=draw) * limits
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
    assert_equals_slow(height, width, boxes.tolist())


CASES = {
    "no object": ([],),
    "no object beside one": ([], [(10, 10, 60, 60)]),
    "one": ([(10, 10, 60, 60)],),
    "larger than the image": ([(-100, -100, 300, 300)],),
    "the whole image": ([(0, 0, 160, 96)],),
    "equal": ([(10, 10, 60, 60)] * 3,),
    "one within another": ([(10, 10, 90, 90), (30, 30, 60, 60)],),
    "as one cell": ([(32, 32, 40, 40)],),
    "without a cell's centre": ([(37, 37, 39, 39)],),
    "thin": ([(0, 40, 160, 41)],),
    "outside": ([(-90, -90, -10, -10)],),
    "outside by far": ([(5000, 20, 5100, 90)],),
}


@pytest.mark.parametrize("images", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("height", "width"), [(96, 160), (32, 32)])
def test_corner_cases(images, height, width):
    assert_equals_slow(height, width, *images)


def test_of_equal_objects_the_first_is_taken_and_tiny_ones_may_find_none():
    matches = assert_equals_slow(96, 160, *CASES["equal"], *CASES["without a cell's centre"])
    assert matches.foreground[0].any()
    assert not matches.objects[0].any()
    assert not matches.foreground[1].any()


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ((0, 0, 7, 9), True),
        ((4, 0, 7, 9), False),  # P3's centre, (4, 4), is on the object's border
        ((0, 4, 7, 9), False),
        ((0, 0, 4, 9), False),
        ((0, 0, 7, 4), False),
        ((-99, -99, 3, 3), False),  # it holds only centres of cells that are not there
    ],
)
def test_all_anchors_of_equal_overlap_reach_their_mean_where_the_centre_is_inside(box, found):
    """Levels of one cell each, whose anchors are all the same: the mean of 45 equal numbers must not be above them."""
    for side in range(20, 40):
        anchors = torch.tensor([0.0, 0, side, side]).expand(5 * 9, 4)
        matches = match_atss(anchors, targets_of([box]), (8, 8))
        assert found_in(matches, 0) == dict.fromkeys(range(9) if found else [], 0)


@pytest.mark.parametrize(("height", "width"), [(64, 1600), (1600, 64), (8, 200), (256, 256), (100, 330)])
def test_nearest_cells_are_those_of_all_cells_sorted(height, width):
    """Points on borders and corners of cells and of the image, where many cells are equally near."""
    y, x = (torch.arange(0, side + 1, max(4, side // 40)).float() for side in (height, width))
    points = torch.cartesian_prod(x, y)
    cells, are_there = nearest_cells(points.repeat(1, 2)[None], levels_of(height, width, CPU))
    for level, (stride, (rows, columns)) in enumerate(zip(STRIDES, level_shapes(height, width), strict=True)):
        all_cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)  # (column, row)
        distances = ((points[:, None] - (all_cells + 0.5) * stride) ** 2).sum(dim=2)
        wanted = all_cells[distances.argsort(dim=1, stable=True)[:, :9]]
        num_cells = wanted.shape[1]
        assert torch.equal(cells[0, :, level, :num_cells].long(), wanted)
        assert (are_there[0, :, level].sum(dim=1) == num_cells).all()


def test_assign_needs_the_size():
    with pytest.raises(AssertionError):
        assign_targets(anchors_for(64, 64, CPU), targets_of([]), 2, LossSettings(matcher="atss"), sparse=True)

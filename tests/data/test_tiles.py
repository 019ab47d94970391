from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.length import IS_LONG

from retinanet.coco.annotations import Annotations
from retinanet.data.batches import Sample, collate
from retinanet.data.dataset import CocoDataset, Window
from retinanet.data.sampler import AspectRatioBasedSampler
from retinanet.data.tiles import TiledEpochs, tile_corners
from retinanet.detector.anchors import anchors_for
from retinanet.detector.boxes import iou
from retinanet.detector.loss import assign_targets
from retinanet.detector.settings import LossSettings
from retinanet.detector.structures import CROWD
from retinanet.runtime.ranks import Ranks
from retinanet.settings.shared import Tiles

EXAMPLES = settings(max_examples=2000 if IS_LONG else 80, deadline=None)
MIN_SIDE, MAX_SIDE = 64, 128
overlaps = st.floats(0, 0.9)


@st.composite
def boxes(draw, height, width):
    """Draws the corners of a box inside an image: tiny, elongated, as large as the image, often at its border."""
    x1, x2 = sorted(draw(st.tuples(st.integers(0, 8 * width - 1), st.integers(1, 8 * width))))
    y1, y2 = sorted(draw(st.tuples(st.integers(0, 8 * height - 1), st.integers(1, 8 * height))))
    return x1 / 8, y1 / 8, (x2 + (x1 == x2)) / 8, (y2 + (y1 == y2)) / 8


@st.composite
def sets(draw):
    """Draws the (height, width) of images, and boxes in each."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=4))
    return [(size, draw(st.lists(boxes(*size), max_size=5))) for size in sizes]


def dataset_of(images, min_visible=0.5):
    counts = [len(corners) for _, corners in images]
    corners = np.array([box for _, each in images for box in each], float).reshape(-1, 4)
    annotations = Annotations(
        path=Path("train.json"),
        class_names=["one", "other"],
        category_ids=[1, 2],
        image_ids=np.arange(len(images)),
        file_names=np.array([b"%d.png" % index for index in range(len(images))]),
        sizes=np.array([size for size, _ in images], np.int64),
        first=np.cumsum([0, *counts]),
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        labels=np.arange(len(corners)) % 2,
        crowds=np.zeros(len(corners), bool),
        areas=np.ones(len(corners)),
    )
    return CocoDataset(annotations, Path(), MIN_SIDE, MAX_SIDE, min_visible=min_visible)


def share_of(box, window):
    """Returns the fraction of a box's area inside a window."""
    _, top, left, height, width = window
    x1, y1, x2, y2 = box
    shown = max(0, min(x2, left + width) - max(x1, left)) * max(0, min(y2, top + height) - max(y1, top))
    return shown / ((x2 - x1) * (y2 - y1))


def corners_along(size, tiles):
    """Returns the starts of the evenly spaced tiles along the height and along the width."""
    if max(size) <= tiles.side:
        return [0], [0]
    corners = tile_corners(size, tiles)
    return sorted({top for top, _ in corners}), sorted({left for _, left in corners})


def literal_tiles(size, tiles, offsets):
    """Returns the windows of an image's tiles, one after the other."""
    if max(size) <= tiles.side:
        return []
    starts = []
    for length, offset in zip(size, offsets, strict=True):
        room, along = max(0, length - tiles.side), [0]
        while along[-1] < room:
            along.append(min(len(along) * tiles.step - offset, room))
        starts.append(along)
    sides = [min(length, tiles.side) for length in size]
    return [(top, left, *sides) for top in starts[0] for left in starts[1]]


@EXAMPLES
@given(sets(), st.integers(64, 200), overlaps, st.floats(0.01, 1), st.integers(0, 9), st.integers(0, 9))
@example([((400, 300), [(0, 0, 300, 400), (10, 10, 11, 11)])], 100, 0.2, 0.5, 1, 0)
def test_an_epoch_is_the_literal_one(images, side, overlap, min_visible, seed, epoch):
    tiles, dataset = Tiles(side, overlap), dataset_of(images, min_visible)
    epochs = TiledEpochs(dataset, tiles, min_visible, seed)
    every, shown = epochs.tiled_in(epoch), epochs.shown_in(epoch)
    draws = np.random.default_rng([seed, epoch, 3]).random((len(images), 2))
    counts = [[len(along) for along in corners_along(size, tiles)] for size, _ in images]
    room = np.array([size for size, _ in images]) - side
    offsets = (draws * ((np.array(counts) - 1) * tiles.step - room.clip(min=0) + 1)).astype(int)
    wanted = [
        Window(row, *window)
        for row, ((size, _), offset) in enumerate(zip(images, offsets.tolist(), strict=True))
        for window in literal_tiles(size, tiles, offset)
    ]
    assert every.windows.tolist() == [list(window) for window in wanted]
    full = {window for window in wanted if any(share_of(box, window) >= min_visible for box in images[window.row][1])}
    views = [Window(*window) for window in shown.windows.tolist()]
    assert views[: len(images)] == [(row, 0, 0, *size) for row, (size, _) in enumerate(images)]
    shown_tiles = views[len(images) :]
    assert len(set(shown_tiles)) == len(shown_tiles)
    assert set(shown_tiles) <= set(wanted)
    assert full <= set(shown_tiles)
    assert len(shown_tiles) - len(full) == -(-(len(wanted) - len(full)) // 4)
    assert shown.sizes.tolist() == [list(dataset.size_at(window, None)) for window in views]


@EXAMPLES
@given(st.integers(1, 900), st.integers(64, 200), overlaps, st.integers(0, 99))
def test_tiles_cover_an_image_and_overlap_enough(length, side, overlap, seed):
    tiles = Tiles(side, overlap)
    every = TiledEpochs(dataset_of([((length, 1), [])]), tiles, 0.5, seed).tiled_in(0)
    if length <= side:
        assert len(every.windows) == 0
        return
    tops, heights = every.windows[:, 1], every.windows[:, 3]
    assert (tops[0], tops[-1] + side) == (0, length)
    assert (heights == side).all()
    assert (np.diff(tops) > 0).all()
    assert (np.diff(tops) <= tiles.step).all()
    assert len(tops) == len(tile_corners((length, 1), tiles))


@EXAMPLES
@given(sets(), st.integers(64, 200), overlaps, st.integers(0, 9))
@example([((300, 300), [(90, 0, 110, 300), (0, 0, 300, 300), (99.5, 99.5, 100.5, 100.5)])], 100, 0.1, 3)
def test_no_object_is_lost_or_background(images, side, overlap, seed):
    dataset = dataset_of(images)
    shown = TiledEpochs(dataset, Tiles(side, overlap), 0.5, seed).shown_in(0)
    targets = Counter()
    for window in [Window(*each) for each in shown.windows.tolist()]:
        row = window.row
        corners, labels = dataset.objects_in(window)
        seen = [box for box in images[row][1] if share_of(box, window) > 0]
        assert len(labels) == len(seen)
        height, width = dataset.size_at(window, None)
        scale = torch.tensor([width / window.width, height / window.height] * 2, dtype=torch.float32)
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        batch = collate([Sample(image, corners * scale, labels, torch.ones(2), row)])
        anchors = anchors_for(*batch.images.shape[2:], torch.device("cpu"))
        assigned = assign_targets(anchors, batch.targets, 2, LossSettings(ignore_crowds=True), sparse=False)
        is_background = (assigned.weights[0] > 0) & (assigned.row_weights == 0)
        for box, part, label in zip(seen, corners, labels, strict=True):
            is_target = share_of(box, window) >= 0.5
            assert (label >= 0) == is_target
            assert is_target or label == CROWD
            targets[row, box] += is_target
            whole = torch.tensor(box) - torch.tensor([window.left, window.top] * 2)
            fits = iou(anchors.unbind(1), (part * scale).unbind()) >= 0.5
            if not is_target:
                fits |= iou(anchors.unbind(1), (whole * scale).unbind()) >= 0.5
            assert not (fits & is_background).any()
    assert all(targets[row, box] for row, (_, corners) in enumerate(images) for box in corners)


def test_other_tiles_each_epoch_and_seed():
    dataset = dataset_of([((400, 300), [(i, i, i + 5, i + 5) for i in range(0, 290, 10)]) for _ in range(3)])

    def windows(seed, epoch):
        return TiledEpochs(dataset, Tiles(100, 0.2), 0.5, seed).shown_in(epoch).windows.tolist()

    assert windows(1, 4) == windows(1, 4)
    assert windows(1, 4) != windows(1, 5) != windows(2, 5)
    first, second = (
        [window[1:] for window in windows(1, 0)[3:] if window[0] == row] for row in (0, 1)
    )  # two images of the same size
    assert first != second


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_sampler_goes_through_an_epoch_of_tiles_on_all_ranks(num_ranks):
    dataset = dataset_of([((400, 300 + 10 * i), [(7 * i, 3 * i, 7 * i + 5, 3 * i + 5)]) for i in range(40)])
    epochs = TiledEpochs(dataset, Tiles(100, 0.2), 0.5, 7)
    samplers = [
        AspectRatioBasedSampler(epochs.shown_in, 2, 7, ranks=Ranks(rank, num_ranks)) for rank in range(num_ranks)
    ]
    starts = samplers[0].first_steps(3)
    for epoch in range(3):
        seen = []
        for sampler in samplers:
            sampler.start_at(epoch)
            draws = list(sampler)
            assert len(draws) == len(sampler) == starts[epoch + 1] - starts[epoch]
            sampler.start_at(epoch, 3)
            assert list(sampler) == draws[3:]
            seen += [window for draw in draws for window in draw.windows]
        assert sorted(seen) == sorted(map(tuple, epochs.shown_in(epoch).windows.tolist()))
    assert len({epochs.shown_in(epoch).num_drawn for epoch in range(9)}) > 1


def test_repeat_factors_repeat_the_tiles_of_rare_classes():
    common = [(0, 0, 40, 40), (200, 200, 240, 240)]
    dataset = dataset_of([((300, 300), common)] * 9 + [((300, 300), [*common, (100, 100, 140, 140)])])
    labels = np.zeros(len(dataset.annotations.labels), int)
    labels[-1] = 1  # in one image of ten
    dataset.annotations = dataset.annotations._replace(labels=labels)
    shown = TiledEpochs(dataset, Tiles(100, 0.2), 0.5, 1, repeat_threshold=0.4).shown_in(0)
    assert shown.num_drawn == pytest.approx(shown.factors.sum(), abs=1e-6)
    has_rare = [window[0] == 9 and share_of((100, 100, 140, 140), window) >= 0.5 for window in shown.windows.tolist()]
    assert shown.factors[has_rare] == pytest.approx(2, rel=0.02)
    assert shown.factors[~np.array(has_rare)] == pytest.approx(1, rel=0.02)

"""Merged views of an image equal single views whose boxes are transformed back by hand."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import batched_nms

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import rows_of
from retinanet.data.batches import collate
from retinanet.data.dataloader import LoaderSettings, evaluation_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.sampler import batches_of_equal_shape
from retinanet.data.transforms import (
    flip,
    mirrored_boxes,
    pad_and_stack,
    padded_shape,
    padded_sizes,
    resize,
    resized_sizes,
    to_tensor,
)
from retinanet.detector.anchors import ANCHORS_PER_CELL, STRIDES, anchors_for
from retinanet.detector.boxes import decode
from retinanet.detector.detect import detect
from retinanet.detector.settings import Architecture, DetectionSettings
from retinanet.detector.structures import Predictions
from retinanet.evaluation.detect_images import found_in_batch
from retinanet.evaluation.detect_set import detect_all, found_in_set
from retinanet.evaluation.views import Views, look_with, merged_views, mirrored, resized_boxes, views_line
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import Ranks

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")
SHAPES = [(60, 60), (90, 60), (57, 91), (85, 60), (60, 90), (70, 53), (86, 60)]  # (width, height)
SIDES = [(64, 96), (96, 144), (80, 120)]  # of which 2 pad all images at the right
NUMBERS = {"threshold": 0.3, "num_candidates": 60, "nms_iou": 0.4, "max_detections": 25}


def noisy_set(folder, shapes=SHAPES):
    """Images whose own sizes differ where their padded ones agree."""
    draw = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    images = []
    for number, (width, height) in enumerate(shapes, start=1):
        pixels = draw.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
        pixels = np.kron(pixels, np.ones((6, 6, 1), np.uint8))[:height, :width]
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
    categories = [{"id": 3, "name": "red"}, {"id": 8, "name": "green"}]
    (folder / "set.json").write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    return CocoDataset(load_annotations(folder / "set.json"), folder / "images", *SIDES[0])


class Lively(torch.nn.Module):
    """Small, and no two of its scores are alike: of each cell's mean colour, by random weights."""

    architecture = Architecture()

    def __init__(self):
        super().__init__()
        self.weights = torch.randn(4, ANCHORS_PER_CELL * 6, generator=torch.Generator().manual_seed(1))

    def forward(self, images):
        parts = []
        for stride in STRIDES:
            colours = F.avg_pool2d(images.float() / 64 - 2, stride, ceil_mode=True).permute(0, 2, 3, 1)
            known = torch.cat([colours, colours.new_full((*colours.shape[:3], 1), 0.3)], dim=3) @ self.weights
            parts.append(known.reshape(len(images), -1, 6))
        both = torch.cat(parts, dim=1)
        return Predictions(both[..., :2] - 4, both[..., 2:])


def detected(model, dataset, *, test_sides=None, flip_test=False, **how):
    """The rows of the result file."""
    return rows_of(detect_all(model, dataset, views=Views(test_sides, flip_test), **how), dataset.annotations)


def plan(batch_size=3, workers=0):
    return {
        "loading": LoaderSettings(batch_size, workers),
        "device": CPU,
        "detection": DetectionSettings(**NUMBERS),
    }


@torch.no_grad()
def slow_rows(model, dataset, test_sides, flip_test):
    """Image by image and view by view; all boxes in original pixels; torchvision's suppression."""
    rows = []
    for index in range(len(dataset)):
        height, width = dataset.annotations.sizes[index].tolist()
        boxes, scores, labels = [], [], []
        for min_side, max_side in test_sides:
            ratio = min(min_side / min(height, width), max_side / max(height, width))
            own_height, own_width = round(height * ratio), round(width * ratio)
            for is_mirrored in (False, True)[: 1 + flip_test]:
                image = resize(to_tensor(dataset.original(index)), (own_height, own_width))
                if is_mirrored:
                    image = torch.from_numpy(image.numpy()[:, :, ::-1].copy())
                images = pad_and_stack([image], padded_shape((own_height, own_width)))
                predictions = model(images)
                flat = [
                    (score, anchor, label)
                    for anchor, of_anchor in enumerate(predictions.logits[0].sigmoid().tolist())
                    for label, score in enumerate(of_anchor)
                ]
                flat = sorted(flat, key=lambda one: -one[0])[: NUMBERS["num_candidates"]]
                anchors = anchors_for(*images.shape[2:], CPU)
                for score, anchor, label in flat:
                    x1, y1, x2, y2 = decode(predictions.deltas[0, anchor], anchors[anchor]).tolist()
                    x1, x2 = (min(max(x, 0), own_width) for x in (x1, x2))
                    y1, y2 = (min(max(y, 0), own_height) for y in (y1, y2))
                    if is_mirrored:
                        x1, x2 = own_width - x2, own_width - x1
                    if score > NUMBERS["threshold"] and x2 > x1 and y2 > y1:
                        horizontal, vertical = own_width / width, own_height / height
                        boxes.append([x1 / horizontal, y1 / vertical, x2 / horizontal, y2 / vertical])
                        scores.append(score)
                        labels.append(label)
        kept = batched_nms(
            torch.tensor(boxes, dtype=torch.float64),
            torch.tensor(scores, dtype=torch.float64),
            torch.tensor(labels),
            NUMBERS["nms_iou"],
        )
        for row in kept[: NUMBERS["max_detections"]].tolist():
            x1, y1, x2, y2 = boxes[row]
            image_id, category_id = int(dataset.annotations.image_ids[index]), [3, 8][labels[row]]
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"image_id": image_id, "category_id": category_id, "bbox": box, "score": scores[row]})
    return rows


def assert_same_rows(rows, expected):
    assert len(rows) == len(expected) > 0
    for one, other in zip(rows, expected, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("num_sides", [1, 3])
def test_equals_its_slow_twin(tmp_path, num_sides, flip_test):
    dataset, model = noisy_set(tmp_path), Lively()
    rows = detected(model, dataset, **plan(), test_sides=SIDES[:num_sides], flip_test=flip_test)
    assert_same_rows(rows, slow_rows(model, dataset, SIDES[:num_sides], flip_test))
    alone = detected(model, dataset, **plan(), test_sides=SIDES[:1])
    assert (rows == alone) == (num_sides == 1 and not flip_test)


def test_by_default_one_view_as_detect_has_it(tmp_path):
    """To the last bit, over the batches of the dataset's own size."""
    dataset, model = noisy_set(tmp_path), Lively()
    parts = []
    for members in batches_of_equal_shape(padded_sizes(dataset.sizes), 3):
        batch = collate([dataset.read(index) for index in members])
        anchors = anchors_for(*batch.images.shape[2:], CPU)
        found = detect(model(batch.images), anchors, batch.sizes, DetectionSettings(**NUMBERS))
        parts.append(found_in_batch(found, batch.scales, np.array(members)))
    expected = rows_of(found_in_set(parts, dataset.annotations), dataset.annotations)
    assert detected(model, dataset, **plan()) == expected
    assert detected(model, dataset, **plan(), test_sides=SIDES[:1]) == expected


def test_neighbours_in_a_batch_change_nothing(tmp_path):
    dataset, model = noisy_set(tmp_path), Lively()
    how = {"test_sides": SIDES, "flip_test": True}
    assert_same_rows(detected(model, dataset, **plan(4), **how), detected(model, dataset, **plan(1), **how))


def batches_by_side(loader):
    return [[loaded.batch for loaded in of_sides] for of_sides in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_side_of_the_same_images_without_foreign_padding(tmp_path, workers):
    dataset = noisy_set(tmp_path)
    loading = LoaderSettings(3, workers)
    loaded = batches_by_side(evaluation_loader(dataset, loading, test_sides=SIDES))
    assert max(len(of_sides[0].images) for of_sides in loaded) > 1
    for of_sides in loaded:
        for batch, (min_side, max_side) in zip(of_sides, SIDES, strict=True):
            assert batch.rows.tolist() == of_sides[0].rows.tolist()
            rows = batch.rows.numpy()
            sizes = resized_sizes(dataset.annotations.sizes[rows], min_side, max_side)
            assert batch.sizes.tolist() == sizes.tolist()
            assert padded_sizes(sizes).tolist() == [list(batch.images.shape[2:])] * len(rows)
            whole = CocoDataset(dataset.annotations, dataset.image_folder, min_side, max_side)
            expected = collate([whole.read(int(row)) for row in rows])
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.scales, expected.scales)
    loaders = [evaluation_loader(dataset, loading, test_sides=SIDES, ranks=Ranks(rank, 2)) for rank in (0, 1)]
    rows = [of_sides[0].rows.tolist() for loader in loaders for of_sides in batches_by_side(loader)]
    assert sorted(rows) == sorted(of_sides[0].rows.tolist() for of_sides in loaded)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_refused(tmp_path, workers):
    dataset = noisy_set(tmp_path)
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"4\.png"):
        detected(Lively(), dataset, **plan(workers=workers), test_sides=SIDES)


def test_an_image_is_decoded_once(tmp_path, monkeypatch):
    dataset, decoded, original = noisy_set(tmp_path), [], CocoDataset.original
    monkeypatch.setattr(CocoDataset, "original", lambda self, index: decoded.append(index) or original(self, index))
    detected(Lively(), dataset, **plan(), test_sides=SIDES, flip_test=True)
    assert sorted(decoded) == list(range(len(SHAPES)))


def test_the_device_holds_one_view_at_a_time(tmp_path):
    """A batch is asked for when the one before has been looked at."""
    loader = evaluation_loader(noisy_set(tmp_path), LoaderSettings(7), test_sides=SIDES)
    model, events = Lively(), []
    model.register_forward_hook(lambda *_: events.append("view"))

    def asked():
        for of_sides in loader:
            for batch, _ in of_sides:
                events.append("batch")
                yield batch

    look = look_with(model, num_candidates=5, device=CPU, precision=torch.float32)
    found = list(merged_views(look, asked(), Views(SIDES, flip=True)))
    assert events == ["batch", "view", "view"] * 3 * len(found)
    assert all(one.candidates.scores.shape[1] == 6 * 5 for one in found)


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 96)), min_size=1, max_size=4))
def test_an_image_is_mirrored_within_its_own_width(sizes):
    draw = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=draw) for size in sizes]
    flipped = [flip(image, torch.zeros(0, 4))[0] for image in images]
    own = torch.tensor(sizes)
    once = mirrored(pad_and_stack(images, (64, 96)), own)
    assert torch.equal(once, pad_and_stack(flipped, (64, 96)))
    assert torch.equal(mirrored(once, own), pad_and_stack(images, (64, 96)))


def test_boxes_are_mirrored_as_images_are():
    image = torch.zeros(3, 20, 50, dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 4, 10, 9], [0, 0, 50, 20]])
    assert torch.equal(mirrored_boxes(boxes[None], torch.tensor([[50]]))[0], flip(image, boxes)[1])


def test_boxes_are_resized_on_each_axis_and_stay_inside():
    boxes = torch.tensor([[[10.0, 20, 30, 40]], [[0, 0, 7, 7]]])
    old, new = torch.tensor([[40, 30], [7, 7]]), torch.tensor([[80, 90], [5, 3]])
    assert resized_boxes(boxes, old, new).tolist() == [[[30, 40, 90, 80]], [[0, 0, 3, 5]]]


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_rounding_carries_no_box_past_the_border(old, new):
    whole = torch.tensor([[[0.0, 0, old, old]]])
    assert resized_boxes(whole, torch.tensor([[old, old]]), torch.tensor([[new, new]])).max() <= new


class Symmetric(torch.nn.Module):
    """A network of which a mirrored image gets the mirrored boxes, exactly: means of pixels, and their differences."""

    architecture = Architecture()

    def forward(self, images):
        logits, deltas = [], []
        for stride in STRIDES:
            red, green, blue = F.avg_pool2d(images.float(), stride).unbind(dim=1)  # whole numbers / 2^n: no rounding
            quarters = F.avg_pool2d(images[:, 0].float(), stride // 2)
            left, right = quarters[:, ::2, ::2], quarters[:, ::2, 1::2]
            scale = torch.arange(1, ANCHORS_PER_CELL + 1)[:, None]  # each anchor of a cell has its own scores
            mixed = torch.stack([red + blue / 77, green + red / 77], dim=-1)  # or some scores would be tied
            scores = mixed[..., None, :] / 100 - scale / 9  # [B, h, w, 9, 2]
            shift = torch.stack([right - left, left + right, left + right, red - green], dim=-1) / 200
            logits.append(scores.flatten(1, 3))
            deltas.append(shift[..., None, :].expand(*scores.shape[:-1], 4).flatten(1, 3))
        return Predictions(torch.cat(logits, dim=1), torch.cat(deltas, dim=1))


def symmetric_sets(folder):
    """Images and their mirror images, of sizes whose grids of cells are symmetric."""
    dataset = noisy_set(folder / "plain", [(128, 128), (256, 128), (128, 256), (128, 128)])
    other = noisy_set(folder / "mirrored", [(128, 128), (256, 128), (128, 256), (128, 128)])
    for number in range(1, 5):
        with Image.open(folder / "plain" / "images" / f"{number}.png") as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored" / "images" / f"{number}.png")
    return dataset, other


def test_the_mirrored_view_of_a_mirrored_image_is_the_plain_view(tmp_path):
    dataset, other = symmetric_sets(tmp_path)
    how = {"test_sides": [(128, 256)]}
    plain = detected(Symmetric(), dataset, **plan(), **how)
    assert plain
    # What is found in a mirrored image alone is the mirror image of what is found in the image.
    for row, own in zip(detected(Symmetric(), other, **plan(), **how), plain, strict=True):
        left, top, width, height = row["bbox"]
        whole = dataset.annotations.sizes[row["image_id"] - 1, 1]
        assert own["bbox"] == pytest.approx([whole - left - width, top, width, height], abs=1e-3)
        assert own["score"] == row["score"]
    # With both views each finds what the other does, and one of each pair is suppressed.
    assert detected(Symmetric(), dataset, **plan(), **how, flip_test=True) == plain


@pytest.mark.parametrize(
    ("sides", "flip_test", "line"),
    [
        ([64, 96], True, "Views: sides 64, 96, each mirrored too: 4 views of each image"),
        ([64, 96], False, "Views: sides 64, 96: 2 views of each image"),
        ([608], True, "Views: side 608, mirrored too: 2 views of each image"),
    ],
)
def test_the_log_tells_the_views(sides, flip_test, line):
    assert views_line(sides, flip_test) == line

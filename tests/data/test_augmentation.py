import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.scripts import TINY

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.augmentation import augment
from retinanet.data.batches import Sample
from retinanet.data.dataloader import LoaderSettings, TrainingBatches, training_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.image_cache import ImageCache
from retinanet.data.transforms import longest_at, resize, resized_sizes
from retinanet.detector.structures import CROWD
from retinanet.settings.options import with_values
from retinanet.settings.shared import AUGMENTATIONS, CROP, JITTER, PHOTOMETRIC, ZOOM_OUT, Augmentation
from retinanet.settings.train import TrainSettings
from retinanet.training.build import sides_to_compile

pytestmark = pytest.mark.usefixtures("narrow_network")

GEOMETRIC = (CROP, ZOOM_OUT, JITTER)
COMBINATIONS = [
    names
    for count in range(1, len(AUGMENTATIONS) + 1)
    for names in itertools.combinations(AUGMENTATIONS, count)
    if JITTER not in names or not {CROP, ZOOM_OUT} & {*names}
]
SIDES = (160, 256)
LABELS = (0, 3, -2)  # of the red, the green and the blue rectangle; one below 0 goes along like any other


def picture(height, width):
    """A grey image with a red, a green and a blue rectangle, in its own size."""
    image = torch.full((3, height, width), 100, dtype=torch.uint8)
    boxes = []
    for channel, (left, top, right, bottom) in enumerate(
        [(0.05, 0.1, 0.4, 0.45), (0.5, 0.05, 0.95, 0.6), (0.1, 0.6, 0.8, 1.0)]
    ):
        x1, x2, y1, y2 = (round(part) for part in (left * width, right * width, top * height, bottom * height))
        image[:, y1:y2, x1:x2] = 20
        image[channel, y1:y2, x1:x2] = 220
        boxes.append([x1, y1, x2, y2])
    return Sample(image, torch.tensor(boxes, dtype=torch.float32), torch.tensor(LABELS), torch.ones(2), 1)


def planned(sample, sides=SIDES):
    height, width = resized_sizes(np.array([sample.image.shape[1:]]), *sides)[0].tolist()
    return height, width


def resized(sample):
    size = planned(sample)
    height, width = sample.image.shape[1:]
    boxes = sample.boxes * torch.tensor([size[1] / width, size[0] / height] * 2)
    return sample._replace(image=resize(sample.image, size), boxes=boxes)


def extent(image, channel):
    """The (x1, y1, x2, y2) of the pixels in which the channel prevails; None where there are none."""
    others = [other for other in range(3) if other != channel]
    seen = image[channel].int() - image[others].amax(dim=0).int() > 100
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    if not len(rows):
        return None
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


@pytest.mark.parametrize("names", [names for names in COMBINATIONS if PHOTOMETRIC not in names], ids="+".join)
@pytest.mark.parametrize("shape", [(300, 400), (120, 90), (90, 301)])
def test_boxes_are_the_extent_of_their_pixels(names, shape):
    sample = picture(*shape)
    source = sample if {CROP, JITTER} & {*names} else resized(sample)
    num_kept, sizes = 0, set()
    for epoch in range(40):
        found = augment(source, planned(sample), names, (3, epoch, 7))
        kept = dict(zip(found.labels.tolist(), found.boxes, strict=True))
        num_kept += len(kept)
        sizes |= {tuple(box.round().tolist()) for box in kept.values()}
        for channel, label in enumerate(LABELS):
            seen = extent(found.image, channel)
            if label in kept:
                assert seen is not None
                torch.testing.assert_close(kept[label], seen, atol=1.5, rtol=0)
            elif seen is not None and (CROP not in names or label == CROWD):  # else its centre may be outside
                assert (seen[2:] - seen[:2]).min() <= 2
    assert num_kept > 40
    assert len(sizes) > 20


def test_an_object_without_its_centre_in_the_crop_is_no_object():
    sample = picture(300, 400)
    outcomes = [augment(sample, planned(sample), (CROP,), (0, epoch, 0)) for epoch in range(40)]
    assert any(len(found.labels) < 3 and extent(found.image, 0) is not None for found in outcomes)
    assert all(len(found.labels) for found in outcomes)  # but one at least is in it


def test_colours_change_and_boxes_don_t():
    sample = resized(picture(300, 400))._replace(labels=torch.tensor([1, -2, -1]))
    outcomes = [augment(sample, planned(sample), (PHOTOMETRIC,), (0, epoch, 0)) for epoch in range(10)]
    assert all(torch.equal(found.boxes, sample.boxes) for found in outcomes)
    assert all(torch.equal(found.labels, sample.labels) for found in outcomes)
    assert all(found.image.shape == sample.image.shape for found in outcomes)
    assert len({found.image.float().mean().item() for found in outcomes}) >= 9
    # An object of less than a pixel, as a large photograph may have, is left alone too.
    tiny = sample._replace(boxes=sample.boxes / 200)
    assert torch.equal(augment(tiny, planned(sample), (PHOTOMETRIC,), (0, 0, 0)).boxes, tiny.boxes)


@pytest.mark.parametrize("names", [(JITTER, PHOTOMETRIC), (ZOOM_OUT, PHOTOMETRIC)], ids="+".join)
def test_the_border_keeps_the_mean_colour(names):
    sample = picture(300, 400)
    source = sample if JITTER in names else resized(sample)
    bordered = 0
    for epoch in range(20):
        image = augment(source, planned(sample), names, (0, epoch, 0)).image
        corners = image[:, [0, 0, -1, -1], [0, -1, 0, -1]].T.tolist()
        bordered += [124, 116, 104] in corners
    assert bordered >= 5


def test_jitter_takes_scales_from_a_tenth_to_two():
    sample = picture(300, 400)
    sample = sample._replace(boxes=torch.tensor([[180.0, 130, 220, 170]]), labels=torch.tensor([0]))
    height, width = planned(sample)
    scales = []
    for epoch in range(100):
        found = augment(sample, (height, width), (JITTER,), (0, epoch, 0))
        for x1, y1, x2, y2 in found.boxes.tolist():
            if x1 > 0 and x2 < width and y1 > 0 and y2 < height:
                scales.append((x2 - x1) / (40 / 400 * width))
    assert 0.09 < min(scales) < 0.3
    assert 1.7 < max(scales) < 2.02


@given(
    st.sampled_from(COMBINATIONS),
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=4),
    st.tuples(st.integers(0, 2**40), st.integers(0, 99), st.integers(0, 2**31)),
)
@settings(max_examples=100, deadline=None)
def test_every_augmented_sample_is_sound_and_fits(names, shape, parts, key):
    height, width = shape
    corners = torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in parts]).reshape(-1, 4)
    boxes = corners * torch.tensor([width, height] * 2)
    labels = torch.arange(len(boxes)) - 2
    image = torch.arange(3 * height * width).reshape(3, height, width).to(torch.uint8)
    sample = Sample(image, boxes, labels, torch.ones(2), 5)
    size = planned(sample, (24, 40))
    is_whole = {CROP, JITTER} & {*names}
    if not is_whole:
        sample = sample._replace(
            image=resize(image, size),
            boxes=boxes * torch.tensor([size[1], size[0]] * 2) / torch.tensor([width, height] * 2),
        )
    found = augment(sample, size, names, key)
    assert type(found.image) is type(found.boxes) is torch.Tensor
    assert (found.image.dtype, found.boxes.dtype, found.labels.dtype) == (torch.uint8, torch.float32, torch.int64)
    own_height, own_width = found.image.shape[1:]
    assert 1 <= own_height <= size[0]
    assert 1 <= own_width <= size[1]
    assert CROP in names or (own_height, own_width) == size
    assert found.boxes.shape == (len(found.labels), 4)
    assert set(found.labels.tolist()) <= set(labels.tolist())
    assert found.row == 5
    if {*GEOMETRIC} & {*names}:
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([own_width, own_height] * 2)).all()
        assert (found.boxes[:, 2:] - found.boxes[:, :2] >= 1).all()
    else:
        assert torch.equal(found.boxes, sample.boxes)


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_augmentation_depends_only_on_seed_epoch_and_index(names):
    sample = picture(300, 400)
    source = sample if {CROP, JITTER} & {*names} else resized(sample)

    def outcomes(*key):
        return augment(source, planned(sample), names, key)

    first = [outcomes(1, epoch, 2) for epoch in range(8)]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = [outcomes(1, epoch, 2) for epoch in reversed(range(8))][::-1]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.boxes, other.boxes)
    for others in ([outcomes(2, epoch, 2) for epoch in range(8)], [outcomes(1, epoch, 3) for epoch in range(8)]):
        assert any(not torch.equal(one.image, other.image) for one, other in zip(first, others, strict=True))
    assert any(not torch.equal(first[0].image, other.image) for other in first[1:])


def test_one_thread_works_and_then_as_many_as_before(monkeypatch):
    seen = []

    def spied(parts, size):
        seen.append(torch.get_num_threads())
        raise ValueError("spied")

    monkeypatch.setattr("retinanet.data.augmentation.ORDER", ((ZOOM_OUT, spied),))
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    try:
        with pytest.raises(ValueError, match="spied"):
            augment(picture(30, 40), (30, 40), (ZOOM_OUT,), (0, 0, 0))
        assert (seen, torch.get_num_threads()) == ([1], 2)
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        torch.set_num_threads(1)


def dataset_of(coco_path):
    return CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 64, 96)


ALL = Augmentation(augment=(PHOTOMETRIC, CROP, ZOOM_OUT), train_sides=(64, 80, 112))


@pytest.mark.parametrize("how", [ALL, Augmentation(augment=(JITTER,)), Augmentation(train_sides=(64, 96))])
def test_the_number_of_workers_changes_nothing(coco_path, how):
    runs = []
    for workers in (0, 2):
        loader, sampler = training_loader(dataset_of(coco_path), LoaderSettings(3, workers), seed=5, augmentation=how)
        batches = []
        for epoch in range(3):
            sampler.start_at(epoch)
            batches += [loaded.batch for loaded in loader]
        runs.append(batches)
        sampler.start_at(2, 1)
        for one, (other, _) in zip(batches[-2:], loader, strict=True):  # an epoch that is gone on with
            assert torch.equal(one.images, other.images)
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.boxes, other.targets.boxes)
        assert torch.equal(one.targets.labels, other.targets.labels)
    assert len({batch.images.shape[2:] for batch in runs[0]}) > 2 or not how.train_sides


@pytest.mark.parametrize("names", [(), *COMBINATIONS], ids="+".join)
def test_images_fit_in_the_batch_of_their_side(coco_path, names):
    dataset = dataset_of(coco_path)
    how = Augmentation(augment=names, train_sides=(64, 80, 112))
    loader, sampler = training_loader(dataset, LoaderSettings(2), seed=0, augmentation=how)
    for draw, (batch, _) in zip(list(sampler), loader, strict=True):
        sizes = dataset.sizes_at(np.array(draw.indices), draw.side)
        assert (batch.sizes.numpy() <= sizes).all()
        assert CROP in names or (batch.sizes.numpy() == sizes).all()
        assert (sizes.min(axis=1) == draw.side).all()
        assert (sizes <= np.array(draw.sides)).all()
        assert (sizes.max(axis=1) <= longest_at(draw.side, 64, 96)).all()


def test_boxes_follow_their_square_at_every_side(coco_path):
    dataset = dataset_of(coco_path)
    batches = TrainingBatches(dataset, 0, Augmentation(flip=0))
    for index, side in itertools.product(range(7), (64, 100, 200)):
        sample = batches.sample(0, index, side)
        assert min(sample.image.shape[1:]) == side
        original = torch.tensor(dataset.annotations.sizes[index])
        assert torch.equal(sample.scale, torch.tensor(sample.image.shape[1:]) / original)
        torch.testing.assert_close(sample.boxes[0], extent(sample.image, sample.labels[0]), atol=1.01, rtol=0)
    plain = TrainingBatches(dataset, 0).sample(0, 0)
    same = TrainingBatches(dataset, 0).sample(0, 0, side=64)
    assert torch.equal(plain.image, same.image)


def test_an_image_of_one_row_and_one_that_can_t_be_read(coco_path):
    Image.new("RGB", (64, 1)).resize((64, 64)).save(coco_path / "images" / "train" / "1.png")
    (coco_path / "images" / "train" / "2.png").write_bytes(b"none")
    dataset = dataset_of(coco_path)
    for names in COMBINATIONS:
        batches = TrainingBatches(dataset, 0, Augmentation(augment=names))
        assert "2.png" in batches.sample(0, 1).message
    row = Sample(torch.zeros(3, 1, 5000, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long(), torch.ones(2), 1)
    for names, epoch in itertools.product(COMBINATIONS, range(5)):
        source = row if {CROP, JITTER} & {*names} else row._replace(image=row.image[:, :, :256])
        found = augment(source, (1, 256), names, (0, epoch, 0))
        assert found.image.shape == (3, 1, 256)
        assert found.boxes.shape == (0, 4)
        assert found.labels.shape == (0,)


@pytest.mark.parametrize("names", [(PHOTOMETRIC,), (ZOOM_OUT,), (ZOOM_OUT, PHOTOMETRIC)], ids="+".join)
def test_the_cache_changes_nothing(coco_path, names):
    plain, cached = dataset_of(coco_path), dataset_of(coco_path)
    cached.cache = ImageCache(cached.sizes, 10**9)
    for epoch, index in itertools.product(range(3), range(8)):
        one, other = (
            TrainingBatches(source, 1, Augmentation(augment=names)).sample(epoch, index) for source in (plain, cached)
        )
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.boxes, other.boxes)
    kept = [cached.cache.get(index) for index in range(8)]
    assert all(torch.equal(image, plain.read(index).image) for index, image in enumerate(kept))


def test_a_training_resumes_to_the_same_numbers(script, coco_path):
    flags = ("--augment", "photometric", "crop", "zoom_out", "--train_sides", 64, 96, "--batch_size", 3)
    run = script("train", "--coco_path", coco_path, *TINY, *flags, "--verify_resume", 2, "--workers", 0)
    assert run.code == 0, run.err
    assert "Equal to the last bit after 4 steps" in run.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--augment", "jitter", "crop"), "--augment jitter: it already crops and pads. Remove crop or jitter"),
        (("--augment", "zoom_out", "jitter"), "Remove zoom_out or jitter"),
        (("--augment", "crop", "crop"), "--augment: crop is listed twice"),
        (("--augment", "blur"), "invalid choice: 'blur'"),
        (("--train_sides", 64, 96, 64), "--train_sides: 64 is listed twice"),
        (("--train_sides", 32), "a whole number, 64 or more"),
        (("--cache", "ram", "--train_sides", 64, 96), "doesn't suit --train_sides 64 96"),
        (("--cache", "ram", "--augment", "photometric", "crop"), "doesn't suit --augment crop"),
        (("--cache", "ram", "--augment", "jitter"), "doesn't suit --augment jitter"),
    ],
)
def test_contradictions(script, coco_path, tmp_path, flags, message):
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "out", *TINY, *flags)
    assert (run.code, message in run.err) == (2, True), run.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("sides", "least", "most"), [(None, 608, 1024), ([480, 672], 480, 1132), ([672], 672, 1132)])
def test_padding_for_compilation_holds_every_side(sides, least, most):
    padded = sides_to_compile(with_values(TrainSettings(), {"train_sides": sides}))
    assert padded[0] == -(-least // 32) * 32
    assert padded[-1] == -(-most // 32) * 32


@pytest.mark.parametrize("shape", [(1, 40), (3, 3), (40, 2)])
def test_an_image_too_small_to_crop_is_left_whole(shape):
    height, width = shape
    boxes, labels = torch.tensor([[0.0, 0, width, height]]), torch.tensor([0])
    sample = Sample(torch.zeros(3, *shape, dtype=torch.uint8), boxes, labels, torch.ones(2), 1)
    for epoch in range(60):
        found = augment(sample, shape, (CROP,), (0, epoch, 0))
        assert tuple(found.image.shape[1:]) == shape
        assert torch.equal(found.boxes, sample.boxes)


@pytest.mark.parametrize("names", [(CROP,), (JITTER,), (PHOTOMETRIC,)])
def test_the_scale_is_that_of_the_planned_size(names):
    sample = picture(100, 401)
    size = planned(sample)
    source = sample if names != (PHOTOMETRIC,) else resized(sample)
    before = torch.tensor(source.image.shape[1:])
    scale = augment(source, size, names, (0, 0, 0)).scale
    torch.testing.assert_close(scale, torch.tensor(size) / before)


def test_a_jittered_image_fills_its_size_wherever_it_is_large_enough():
    """And what is smaller keeps its shape."""
    sample = picture(90, 301)._replace(image=torch.full((3, 90, 301), 200, dtype=torch.uint8))
    height, width = size = planned(sample)
    num_full = 0
    for epoch in range(30):
        seen = augment(sample, size, (JITTER,), (0, epoch, 0)).image[0] == 200
        share = seen.any(dim=1).sum() / height, seen.any(dim=0).sum() / width
        assert share[0] == pytest.approx(share[1].item(), abs=1 / height)
        num_full += bool(seen.all())
    assert 5 < num_full < 25

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.sampler import (
    AspectRatioBasedSampler,
    Shown,
    batches_of_equal_shape,
    drawn_counts,
    repeat_factors,
)
from retinanet.runtime.ranks import Ranks

sizes = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=60)


def sampler_of(sizes, *how, sizes_at=None, factors=None, **more):
    """A sampler that shows all images in each epoch."""
    return AspectRatioBasedSampler(Shown(np.array(sizes), factors, sizes_at), *how, **more)


def epoch_of(sampler, epoch):
    sampler.start_at(epoch)
    return list(sampler)


@given(sizes, st.integers(1, 8), st.integers(0, 2**32), st.integers(0, 100), st.booleans())
def test_every_image_exactly_once(sizes, batch_size, seed, epoch, drop_last):
    sampler = sampler_of(sizes, batch_size, seed, drop_last)
    batches = epoch_of(sampler, epoch)
    seen = [index for draw in batches for index in draw.indices]
    assert len(batches) == len(sampler)
    assert {draw.epoch for draw in batches} <= {epoch}
    assert len(set(seen)) == len(seen)
    if drop_last:
        assert all(len(draw.indices) == batch_size for draw in batches)
        assert len(seen) == len(sizes) // batch_size * batch_size
    else:
        assert sorted(seen) == list(range(len(sizes)))
        assert sum(len(draw.indices) < batch_size for draw in batches) <= 1


@given(sizes, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 9))
def test_ranks_share_the_batches_of_one(sizes, batch_size, num_ranks, drop_last, first_batch):
    together = sampler_of(sizes, batch_size * num_ranks, 1, drop_last)
    whole = epoch_of(together, 2)
    assert all(draw.sides == tuple(np.array(sizes)[draw.indices].max(axis=0)) for draw in whole)
    shares = []
    for rank in range(num_ranks):
        sampler = sampler_of(sizes, batch_size, 1, drop_last, ranks=Ranks(rank, num_ranks))
        shares.append(epoch_of(sampler, 2))
        assert len(sampler) == len(whole)
        sampler.start_at(2, first_batch)
        assert list(sampler) == shares[rank][first_batch:]  # a resumed epoch goes on where it was
    for draw, *of_ranks in zip(whole, *shares, strict=True):
        assert sorted(draw.indices) == sorted(index for share in of_ranks for index in share.indices)
        assert {share.sides for share in of_ranks} == {draw.sides}
        assert all(len(share.indices) <= batch_size for share in of_ranks)


def halves(sizes, train_sides=(50, 100, 200)):
    """A sampler's way to sides: an image's size is its side times its half."""
    return {"train_sides": train_sides, "sizes_at": lambda rows, side: np.array(sizes)[rows] * side // 2}


def test_sides_leave_the_batches_as_they_are():
    sizes = [(400 + i % 7, 600 - i) for i in range(90)]
    plain = sampler_of(sizes, 3, seed=1)
    sided = sampler_of(sizes, 3, seed=1, **halves(sizes))
    drawn = []
    for epoch in range(3):
        for one, other in zip(epoch_of(plain, epoch), epoch_of(sided, epoch), strict=True):
            assert one.side is None
            assert (one.epoch, one.indices) == (other.epoch, other.indices)
            assert other.sides == tuple((np.array(sizes)[one.indices] * other.side // 2).max(axis=0))
        drawn.append([draw.side for draw in sided])
    assert min(np.bincount(np.concatenate(drawn))[[50, 100, 200]]) > 15
    assert drawn[0] != drawn[1] != drawn[2]
    other_seed = sampler_of(sizes, 3, seed=2, **halves(sizes))
    assert [draw.side for draw in epoch_of(other_seed, 0)] != drawn[0]


@given(sizes, st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.integers(0, 2**40))
def test_a_batch_has_one_side_on_all_ranks_and_when_resumed(sizes, batch_size, num_ranks, first_batch, seed):
    whole = epoch_of(sampler_of(sizes, batch_size * num_ranks, seed, **halves(sizes)), 4)
    for rank in range(num_ranks):
        how = {"ranks": Ranks(rank, num_ranks)} | halves(sizes)
        sampler = sampler_of(sizes, batch_size, seed, **how)
        sampler.start_at(4, first_batch)
        assert [(draw.side, draw.sides) for draw in sampler] == [
            (draw.side, draw.sides) for draw in whole[first_batch:]
        ]


def test_a_function_of_seed_and_epoch():
    shapes = [(480, 640)] * 20 + [(640, 480)] * 21
    first = epoch_of(sampler_of(shapes, 4, seed=1), 3)
    late = sampler_of(shapes, 4, seed=1)
    epoch_of(late, 7)  # what was drawn before changes nothing
    assert epoch_of(late, 3) == first
    assert epoch_of(late, 4) != first
    assert epoch_of(sampler_of(shapes, 4, seed=2), 3) != first


def test_batches_are_drawn_again_and_not_only_shuffled():
    shapes = [(400 + i, 600) for i in range(64)]  # no two of one shape
    sampler = sampler_of(shapes, 4, seed=0)
    members = [{frozenset(draw.indices) for draw in epoch_of(sampler, epoch)} for epoch in (0, 1)]
    assert len(members[0] & members[1]) < 4


def test_like_shapes_together():
    draw = np.random.default_rng(0)
    shapes = [(480, 640) if wide else (640, 480) for wide in draw.random(100) < 0.5]
    mixed = [drawn for drawn in sampler_of(shapes, 4, seed=0) if len({shapes[index] for index in drawn.indices}) > 1]
    assert len(mixed) <= 1


def test_drop_last_leaves_out_others_each_epoch():
    sampler = sampler_of([(10, 10 + i) for i in range(11)], 4, seed=0, drop_last=True)
    left_out = {
        frozenset(range(11)) - {index for draw in epoch_of(sampler, epoch) for index in draw.indices}
        for epoch in range(5)
    }
    assert len(left_out) > 1


@given(sizes, st.integers(1, 8))
@pytest.mark.filterwarnings("error")
def test_evaluation_batches_share_their_shape(sizes, batch_size):
    batches = batches_of_equal_shape(np.array(sizes), batch_size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size and len({sizes[index] for index in batch}) == 1 for batch in batches)


def set_of(images, classes=("cat", "dog", "emu"), crowds=()):
    """A dataset whose images show the given labels; the annotations `crowds` are crowds."""
    labels = [label for image in images for label in image]
    first = np.cumsum([0, *map(len, images)])
    annotations = SimpleNamespace(labels=np.array(labels, int), first=first, class_names=list(classes))
    is_learned = ~np.isin(np.arange(len(labels)), crowds)
    return type("Set", (), {"annotations": annotations, "is_learned": is_learned, "__len__": lambda _: len(images)})()


def test_an_image_is_repeated_for_its_rarest_class():
    # Cats in 8 of 10 images, dogs in 2, an emu in 1, one image empty. By hand: sqrt(0.4 / 0.2) and sqrt(0.4 / 0.1).
    images = [[0]] * 6 + [[0, 1, 1], [0, 2], [1], []]
    raw = np.array([1] * 6 + [2**0.5, 2, 2**0.5, 1])
    factors = repeat_factors(set_of(images), 0.4)
    assert factors == pytest.approx(raw * np.ceil(raw.sum()) / raw.sum())
    assert factors.sum() == pytest.approx(12)
    assert repeat_factors(set_of(images), 0.1).tolist() == [1] * 10
    assert repeat_factors(set_of(images), 0) is None
    assert repeat_factors(set_of(images, crowds=[10]), 0.4)[7] < 1.1  # the emu is not learned


@given(st.lists(st.floats(1, 5), min_size=1, max_size=50), st.floats(0, 1, exclude_max=True))
def test_counts_are_the_factors_rounded_up_or_down(factors, offset):
    factors = np.array(factors)
    factors *= np.ceil(factors.sum()) / factors.sum()
    counts = drawn_counts(factors, offset)
    assert counts.sum() == round(factors.sum())
    assert (np.abs(counts - factors) < 1 + 1e-6).all()


def test_counts_are_the_factors_in_the_mean():
    factors = np.array([1.25, 1.5, 2.25])
    offsets = (np.arange(400) + 0.5) / 400
    assert np.mean([drawn_counts(factors, offset) for offset in offsets], axis=0) == pytest.approx(factors)


@given(sizes, st.integers(1, 5), st.integers(1, 3), st.booleans(), st.data())
def test_images_repeat_within_an_epoch(sizes, batch_size, num_ranks, drop_last, data):
    drawn = data.draw(st.lists(st.floats(1, 4), min_size=len(sizes), max_size=len(sizes)))
    factors = np.array(drawn) * (np.ceil(sum(drawn)) / sum(drawn))
    seen = []
    for rank in range(num_ranks):
        ranks = Ranks(rank, num_ranks)
        sampler = sampler_of(sizes, batch_size, 1, drop_last, ranks=ranks, factors=factors)
        batches = epoch_of(sampler, 3)
        assert len(batches) == len(sampler)
        seen += [index for draw in batches for index in draw.indices]
        for draw in batches:
            shapes = np.array(sizes)[np.array(draw.indices, int) % len(sizes)].reshape(-1, 2)
            assert (shapes <= draw.sides).all()
    assert len(set(seen)) == len(seen)  # a copy has an index of its own
    total = round(factors.sum())
    together = batch_size * num_ranks
    assert len(seen) == (total // together * together if drop_last else total)
    if not drop_last:
        counts = np.bincount(np.array(seen) % len(sizes), minlength=len(sizes))
        assert (np.abs(counts - factors) < 1 + 1e-6).all()
        for image, count in enumerate(counts):
            assert {index // len(sizes) for index in seen if index % len(sizes) == image} == set(range(count))


def test_rounding_adds_no_image_to_an_epoch():
    # 15 of 48 images have a class that asks for 7/5, so an epoch has 54: in floating point a trifle more.
    factors = repeat_factors(set_of([[0]] * 15 + [[]] * 33), 0.6125)
    assert factors.sum() == pytest.approx(54)
    assert factors[:15] == pytest.approx(7 / 5)


def test_drop_last_leaves_out_draws_and_not_all_of_an_image():
    """Five images come twice each; of ten draws two fill no batch, which are seldom of the same image."""
    sampler = sampler_of(np.full((5, 2), 99), 4, seed=0, drop_last=True, factors=np.full(5, 2.0))
    epochs = [epoch_of(sampler, epoch) for epoch in range(40)]
    missing = [len({index % 5 for draw in draws for index in draw.indices}) < 5 for draws in epochs]
    assert sum(missing) < 12


def test_images_of_a_shape_come_at_every_side():
    sizes = [(100, 300)] * 4  # one batch
    sampler = sampler_of(sizes, 4, seed=1, **halves(sizes))
    assert {draw.side for epoch in range(20) for draw in epoch_of(sampler, epoch)} == {50, 100, 200}


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_ranks_share_what_fills_no_step_evenly(num_images, batch_size, accumulate, num_ranks):
    sizes = np.full((num_images, 2), 99)
    counts = []
    for rank in range(num_ranks):
        how = {"accumulate": accumulate, "ranks": Ranks(rank, num_ranks)}
        draws = epoch_of(sampler_of(sizes, batch_size, 1, **how), 0)
        counts.append(np.array([len(draw.indices) for draw in draws]).reshape(-1, accumulate).sum(axis=1))
    assert (np.ptp(counts, axis=0) <= 1).all()

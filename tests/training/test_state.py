"""The training state passes from one process to the next."""

import io
import random

import numpy as np
import pytest
import torch
from support.built import small_losses, small_state

from retinanet.data.batches import Batch
from retinanet.detector.structures import Targets
from retinanet.training.engine import train_steps

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")


def new_state(loss_scale=1024.0):
    return small_state(learning_rate=0.01, average_decay=0.9, loss_scale=loss_scale)


def batch_of(labels, row=7):
    """An image of 64 x 64 pixels; its labels may be padding and crowds."""
    boxes = torch.tensor([[10.0, 10, 50, 50]]).repeat(len(labels), 1)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    sizes, rows = torch.tensor([[64, 64]]), torch.tensor([row])
    return Batch(images, Targets(boxes[None], torch.tensor([labels])), sizes, torch.ones(1, 2), rows)


def step(state, batch, change=lambda losses: losses):
    plain = small_losses(state.network)
    how = {"rates": [0.01], "clip_norm": 0.1, "compute_losses": lambda *words: change(plain(*words))}
    list(train_steps(state, [[batch]], **how))


def assert_equal(one, other, place=""):
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=place)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name, value in one.items():
            assert_equal(value, other[name], f"{place} {name}")
    elif isinstance(one, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place} {number}")
    else:
        assert one == other, place


def test_another_process_resumes_the_whole_state():
    state = new_state()
    for _ in range(3):
        step(state, batch_of([1]))
    state.finish_epoch(0.5)
    for bad in (True, False, True, True):
        step(state, batch_of([1]), lambda losses, bad=bad: losses._replace(regression=losses.regression / (not bad)))
    assert len(state.skipped.take_new()) == 3
    state.evaluated, state.best_ap, state.ap_by_epoch = 1, 0.25, {1: 0.25}
    state.numbers, state.score_threshold = {"AP": 0.25, "AP50": 0.5}, 0.375
    state.num_images, state.seconds, state.epoch_seconds, state.epoch_waited = 3, 7.0, 5.0, 2.0
    saved = state.to_plain()
    file = io.BytesIO()
    torch.save(saved, file)
    drawn = random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002
    other = new_state(loss_scale=2.0)
    file.seek(0)
    other.load_plain(torch.load(file), "last.pt")
    assert_equal(other.to_plain(), saved)
    assert (other.skipped.total, other.skipped.in_row, other.average.num_updates) == (3, 2, 7)
    assert other.running_loss.mean() == state.running_loss.mean()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == drawn  # noqa: NPY002


def test_a_finished_epoch_is_added_up_and_the_next_begins_at_nothing():
    state = new_state()
    for epoch in (1, 2):
        for _ in range(epoch + 1):
            step(state, batch_of([1]))
        state.epoch_seconds, state.epoch_waited = 10.0 * epoch, 3.0
        state.finish_epoch(0.5)
        assert (state.epoch, state.iteration, state.epoch_seconds, state.epoch_waited) == (epoch, 0, 0, 0)
        assert not state.tally.any()
    assert (state.num_images, state.seconds, state.epoch_losses) == (5, 30, [0.5, 0.5])


def test_the_record_of_a_skipped_step_has_only_the_objects():
    state = new_state()
    step(state, batch_of([1, -2, 0, -1]), lambda losses: losses._replace(regression=losses.regression * torch.nan))
    (told,) = state.skipped.take_new()
    assert told["images"] == [{"row": 7, "boxes": [[10, 10, 50, 50]] * 2, "labels": [1, 0]}]

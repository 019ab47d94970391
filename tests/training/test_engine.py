import math
import time
from itertools import islice

import pytest
import torch
from support.built import small_losses, small_network, small_run, small_set, small_state
from support.data_folder import write_set

from retinanet.coco.results import rows_of
from retinanet.data.batches import collate
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.device_feed import WaitClock
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Losses, Targets
from retinanet.evaluation.coco_table import AP50, evaluate
from retinanet.evaluation.detect_set import detect_all
from retinanet.runtime.ranks import Ranks
from retinanet.training.engine import progress_of, rest_of_epoch, train_steps
from retinanet.training.state import RunningLoss

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")


def train(model, dataset, epochs, *, batch_size=4, learning_rate=1e-3, optimizer="adam", change=None):
    """The state and what there was to log after each step; `change(losses, step)` may change the losses."""
    loader, sampler = training_loader(dataset, LoaderSettings(batch_size), seed=1)
    state = small_state(model, optimizer=optimizer, learning_rate=learning_rate)
    plain, steps = small_losses(model), 0

    def compute(images, targets):
        nonlocal steps
        steps += 1
        losses = plain(images, targets)
        return change(losses, steps) if change else losses

    progress = []
    for epoch in range(epochs):
        sampler.start_at(epoch)
        rates = [learning_rate] * len(sampler)
        for rate in train_steps(
            state, ([loaded.batch] for loaded in loader), rates=rates, clip_norm=0.1, compute_losses=compute
        ):
            progress.append(progress_of(state, rate))
        state.finish_epoch(progress[-1].epoch_mean)
    return state, progress


def test_a_narrow_network_learns_to_find_the_squares(tmp_path):
    dataset = small_set(tmp_path, 16)
    annotations = dataset.annotations
    model = small_network(channels=16, learn_statistics=True)
    state, _ = train(model, dataset, 25)
    assert state.epoch_losses[-1] < state.epoch_losses[0] / 3
    plan = {"loading": LoaderSettings(4), "device": CPU}
    found = detect_all(model, dataset, **plan)
    rows = rows_of(found, annotations)
    assert evaluate(annotations, found, "pycocotools").numbers[AP50] > 0.8
    assert rows == sorted(rows, key=lambda row: (row["image_id"], -row["score"]))
    few = detect_all(model, dataset, **plan, detection=DetectionSettings(threshold=0.5))
    for one, other in zip(rows_of(few, annotations), [row for row in rows if row["score"] > 0.5], strict=True):
        assert one == {**other, "bbox": pytest.approx(other["bbox"], abs=1e-4)}  # other windows round in another way


def test_means_are_those_of_the_losses(tmp_path):
    dataset = small_set(tmp_path, 5)
    state, progress = train(small_network(), dataset, 2, batch_size=1)
    losses = [one.classification + one.regression for one in progress]
    assert progress[4].epoch_mean == pytest.approx(sum(losses[:5]) / 5)
    assert progress[9].epoch_mean == pytest.approx(sum(losses[5:]) / 5)
    assert progress[9].running == pytest.approx(sum(losses) / 10)
    assert state.epoch_losses == [progress[4].epoch_mean, progress[9].epoch_mean]
    assert [one.num_images for one in progress] == [1, 2, 3, 4, 5] * 2
    assert (state.epoch, state.iteration, state.num_images) == (2, 0, 10)


def test_the_running_loss_forgets_after_500():
    running = RunningLoss(CPU)
    for value in range(700):
        running.add(torch.tensor(float(value)))
    assert running.mean() == pytest.approx(sum(range(200, 700)) / 500)


@pytest.mark.parametrize(("is_idle", "counted"), [(True, True), (False, False)])
def test_a_gpu_waits_only_while_it_is_idle(is_idle, counted):
    class Event:
        def query(self):
            return is_idle

        def record(self):
            pass

    def slowly():
        for number in range(2):
            time.sleep(0.01)
            yield number

    clock = WaitClock(slowly(), CPU)
    assert list(clock) == [0, 1]
    assert clock.waited >= 0.02  # a CPU does nothing else meanwhile
    clock = WaitClock(slowly(), CPU)
    clock.step_done = Event()
    assert list(clock) == [0, 1]
    assert (clock.waited >= 0.02) == counted


def test_the_gradient_is_clipped_and_the_rate_used(tmp_path):
    dataset = small_set(tmp_path, 2)
    model = small_network()
    before = [value.detach().clone() for value in model.parameters()]
    loader, _ = training_loader(dataset, LoaderSettings(2), seed=1)
    state = small_state(model, optimizer="sgd", learning_rate=123.0)
    list(
        train_steps(
            state,
            ([loaded.batch] for loaded in loader),
            rates=[0.5],
            clip_norm=0.01,
            compute_losses=small_losses(model),
        )
    )
    moved = math.sqrt(sum(((new - old) ** 2).sum().item() for new, old in zip(model.parameters(), before, strict=True)))
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)


def poisoned(bad_steps, value):
    def change(losses, step):
        factor = value if step in bad_steps else 1.0
        return Losses(losses.classification * factor, losses.regression)

    return change


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, optimizer, value):
    dataset = small_set(tmp_path, 6)
    states = []
    for bad_steps in ({1, 3}, set()):
        torch.manual_seed(5)
        model = small_network(learn_statistics=True)
        snapshots = []

        def change(losses, step, model=model, snapshots=snapshots, bad_steps=bad_steps):
            snapshots.append({name: tensor.clone() for name, tensor in model.named_parameters()})
            return poisoned(bad_steps, value)(losses, step)

        state, _ = train(model, dataset, 1, batch_size=1, optimizer=optimizer, change=change)
        states.append(state)
        if bad_steps:
            assert all(torch.equal(snapshots[0][name], snapshots[1][name]) for name in snapshots[0])
            assert all(torch.equal(snapshots[2][name], snapshots[3][name]) for name in snapshots[0])
            assert not all(torch.equal(snapshots[1][name], snapshots[2][name]) for name in snapshots[0])
    skipping, undisturbed = states
    told = skipping.skipped.take_new()
    assert [(one["epoch"], one["iteration"]) for one in told] == [(0, 1), (0, 3)]
    assert undisturbed.skipped.take_new() == []
    assert all(tensor.isfinite().all() for tensor in skipping.network.state_dict().values())
    for state, steps in ((skipping, 4), (undisturbed, 6)):
        assert state.epoch_losses[0] == pytest.approx(state.epoch_losses[0])  # not NaN
        assert int(state.running_loss.window.isfinite().sum()) == steps
        if optimizer != "sgd":
            assert {float(kept["step"]) for kept in state.optimizer.state.values()} == {steps}


@pytest.mark.parametrize(
    ("loss", "gradient", "scale", "counted"),
    [
        (1, math.inf, 65536.0, False),  # the scale is too large yet, as float16's is at the start
        (1, math.nan, 4.0, False),
        (1, math.inf, 1.0, True),
        (1, math.inf, None, True),  # no scaling
        (math.nan, 1, 65536.0, True),
    ],
)
def test_a_scale_that_is_too_large_is_no_fault_of_the_step(tmp_path, loss, gradient, scale, counted):
    dataset = small_set(tmp_path, 2)
    model = small_network()
    loader, _ = training_loader(dataset, LoaderSettings(1), seed=1)
    state = small_state(model, loss_scale=scale, max_skipped=2)
    plain, before = small_losses(model), [value.detach().clone() for value in model.parameters()]

    def compute(images, targets):
        losses = plain(images, targets)
        losses.classification.register_hook(lambda own: own * gradient)
        return Losses(losses.classification * loss, losses.regression)

    list(
        train_steps(
            state, ([loaded.batch] for loaded in loader), rates=[1e-3] * 2, clip_norm=0.1, compute_losses=compute
        )
    )
    assert len(state.skipped.take_new()) == state.skipped.total == (2 if counted else 0)
    assert state.skipped.too_many == counted
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert state.scaler.get_scale() == (scale / 4 if scale else 1)


def test_statistics_survive_activations_that_overflow(tmp_path):
    dataset = small_set(tmp_path, 3)
    model = small_network(learn_statistics=True)
    with torch.no_grad():
        model.backbone.conv1.weight.mul_(1e38)
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    state, _ = train(model, dataset, 1, batch_size=1)
    state.skipped.take_new()
    assert state.skipped.total == 3
    after = dict(model.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_too_many_skipped_in_a_row_are_noticed_even_late(tmp_path):
    dataset = small_set(tmp_path, 4)
    for bad_steps, too_many in (({1, 2, 3, 5, 6, 7, 8}, False), ({2, 3, 4, 5}, True)):
        model = small_network()
        state, _ = train(model, dataset, 2, batch_size=1, change=poisoned(bad_steps, float("nan")))
        state.skipped.max_in_row = 4 if too_many else 5
        state.skipped.take_new()
        assert state.skipped.too_many == too_many
        assert state.skipped.total == len(bad_steps)


def test_a_resumed_epoch_keeps_its_time(tmp_path):
    for name in ("train", "val"):
        write_set(tmp_path, name, 2)
    run = small_run(tmp_path, "--batch_size", 1)
    run.state.epoch_seconds, run.state.epoch_waited = 1000.0, 400.0
    for rate in rest_of_epoch(run):
        progress = progress_of(run.state, rate)
        assert 1000 < progress.seconds < 1100
        assert 400 < progress.waited < 500


def test_the_share_of_clipped_steps_is_of_those_that_were_taken(tmp_path):
    dataset = small_set(tmp_path, 8)
    change = poisoned({1, 3}, 1e30)  # whose gradient has an infinite norm
    _, progress = train(small_network(), dataset, 1, batch_size=2, change=change)
    assert [math.isinf(one.gradient_norm) for one in progress] == [True, False, True, False]
    assert [one.clipped for one in progress] == [0, 1, 1, 1]


def test_a_step_in_which_no_rank_has_an_image_changes_nothing(tmp_path):
    """Adam's moments would move the weights without a gradient too."""

    class OfTwo(Ranks):
        def meet(self):
            pass

        def summed(self, numbers):  # the other rank has no image either
            return numbers

    dataset = small_set(tmp_path, 2)
    model = small_network()
    state = small_state(model)
    full = collate([dataset.read(0)])
    none = full._replace(images=full.images[:0], targets=Targets(*(part[:0] for part in full.targets)))
    how = {"rates": [1e-3] * 2, "clip_norm": 0.1, "compute_losses": small_losses(model), "ranks": OfTwo(0, 2)}
    steps = train_steps(state, [[full], [none._replace(rows=full.rows[:0])]], **how)
    next(steps)
    before = [value.detach().clone() for value in model.parameters()]
    next(steps)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert state.skipped.take_new() == []


def test_a_resumed_epoch_uses_the_rates_of_its_own_steps(tmp_path):
    for name in ("train", "val"):
        write_set(tmp_path, name, 4)
    run = small_run(tmp_path, "--batch_size", 1, "--epochs", 3, "--learning_rate", 1e-3, "--warmup_steps", 9)
    rates = list(rest_of_epoch(run))
    run.state.finish_epoch(0.0)
    rates += islice(rest_of_epoch(run), 3)  # where a signal ends it
    rates += rest_of_epoch(run)
    assert rates == pytest.approx([1e-4 * step for step in range(1, 9)])

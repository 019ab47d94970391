import math
import time

import pytest
import torch
from conftest import write_set

from retinanet.annotation_cache import load_annotations
from retinanet.compute import losses_of
from retinanet.data import CocoDataset, training_loader
from retinanet.engine import RunningLoss, WaitClock, build_optimizer, detect_all, result_rows, train_epoch
from retinanet.evaluate import AP50, evaluate
from retinanet.model import RetinaNet
from retinanet.structures import Detections

CPU = torch.device("cpu")


def set_of(folder, count):
    write_set(folder, "train", count)
    annotations = load_annotations(folder / "train.json")
    return annotations, CocoDataset(annotations, folder / "images" / "train", 64, 96)


def train(model, dataset, epochs, *, rates=None, log_every=100, batch_size=4, learning_rate=1e-3):
    loader, sampler = training_loader(dataset, batch_size=batch_size, seed=1, workers=0, pin_memory=False)
    optimizer = build_optimizer(model, "adam", learning_rate, 0.0)
    running = RunningLoss(CPU)
    progress = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        progress += train_epoch(
            model,
            loader,
            optimizer,
            running,
            device=CPU,
            rates=rates or [learning_rate] * len(sampler),
            clip_norm=0.1,
            log_every=log_every,
            compute_losses=losses_of(model, 2, CPU),
        )
    return progress


def test_a_narrow_network_learns_to_find_the_squares(tmp_path):
    annotations, dataset = set_of(tmp_path, 16)
    model = RetinaNet(2, 18, channels=16, learn_statistics=True)
    progress = train(model, dataset, 15)
    assert progress[-1].epoch_mean < progress[1].epoch_mean / 3
    plan = {"batch_size": 4, "workers": 0, "device": CPU}
    rows = detect_all(model, dataset, **plan, detect_settings={})
    assert evaluate(annotations, rows, "pycocotools").numbers[AP50] > 0.6
    assert rows == sorted(rows, key=lambda row: (row["image_id"], -row["score"]))
    few = detect_all(model, dataset, **plan, detect_settings={"threshold": 0.5})
    assert few == [row for row in rows if row["score"] > 0.5]


def test_logs_the_first_every_nth_and_the_last_iteration(tmp_path):
    _, dataset = set_of(tmp_path, 7)
    rates = [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5]
    progress = train(RetinaNet(2, 18, channels=8), dataset, 2, log_every=3, batch_size=1, rates=rates)
    assert [one.iteration for one in progress] == [1, 3, 6, 7] * 2
    assert [one.learning_rate for one in progress[:4]] == [1e-5, 3e-5, 6e-5, 7e-5]
    exact = train(RetinaNet(2, 18, channels=8), dataset, 1, log_every=7, batch_size=1)
    assert [one.iteration for one in exact] == [1, 7]


def test_means_are_those_of_the_losses(tmp_path):
    _, dataset = set_of(tmp_path, 5)
    progress = train(RetinaNet(2, 18, channels=8), dataset, 2, log_every=1, batch_size=1)
    losses = [one.classification + one.regression for one in progress]
    assert progress[4].epoch_mean == pytest.approx(sum(losses[:5]) / 5)
    assert progress[9].epoch_mean == pytest.approx(sum(losses[5:]) / 5)
    assert progress[9].running == pytest.approx(sum(losses) / 10)


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
    for _ in clock:
        clock.step_launched()
    assert (clock.waited >= 0.02) == counted


def test_the_gradient_is_clipped_and_the_rate_used(tmp_path):
    _, dataset = set_of(tmp_path, 2)
    model = RetinaNet(2, 18, channels=8)
    before = [value.detach().clone() for value in model.parameters()]
    loader, _ = training_loader(dataset, batch_size=2, seed=1, workers=0, pin_memory=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    settings = {"device": CPU, "rates": [0.5], "clip_norm": 0.01, "log_every": 1}
    losses = losses_of(model, 2, CPU)
    list(train_epoch(model, loader, optimizer, RunningLoss(CPU), compute_losses=losses, **settings))
    moved = math.sqrt(sum(((new - old) ** 2).sum().item() for new, old in zip(model.parameters(), before, strict=True)))
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    _, dataset = set_of(tmp_path, 2)
    model = RetinaNet(2, 18, channels=8)
    with torch.no_grad():
        model.regression_head.output.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at iteration 1"):
        train(model, dataset, 1)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers(name, kind):
    optimizer = build_optimizer(torch.nn.Linear(2, 2), name, 0.1, 0.3)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert name != "sgd" or optimizer.param_groups[0]["momentum"] == 0.9


def test_rows_are_in_original_pixels_with_category_ids():
    detections = Detections(
        boxes=torch.tensor([[[10.0, 20, 30, 60], [0, 0, 0, 0]], [[0, 0, 8, 8], [4, 4, 8, 12]]]),
        scores=torch.tensor([[0.5, 0], [0.9, 0.25]]),
        labels=torch.tensor([[1, -1], [0, 1]]),
    )
    scales = torch.tensor([[2.0, 0.5], [1, 1]])  # (vertical, horizontal)
    assert result_rows(detections, scales, torch.tensor([77, 5]), [3, 9]) == [
        {"image_id": 77, "category_id": 9, "bbox": [20, 10, 40, 20], "score": 0.5},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 8, 8], "score": pytest.approx(0.9)},
        {"image_id": 5, "category_id": 9, "bbox": [4, 4, 4, 8], "score": 0.25},
    ]

import argparse
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.accuracy import peer
from benchmarks.speed.contestants import torchvision_model
from retinanet.coco.results import rows_of
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.runtime.errors import Diverged
from retinanet.training.optimizer import build_optimizer


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A part of a ResNet-18, as $R18 is."""
    path = tmp_path_factory.mktemp("weights") / "part.pth"
    body = torchvision_model(18, 1).backbone.body
    torch.save({name: value for name, value in body.state_dict().items() if not name.startswith("layer4")}, path)
    return path


def flags(coco_path: Path, weights: Path, *more: str) -> list[str]:
    words = ["--coco_path", coco_path, "--weights", weights, "--depth", 18, "--min_side", 64, "--max_side", 96]
    return [*map(str, words), "--epochs", "1", "--device", "cpu", "--workers", "0", *more]


def arguments(*words) -> argparse.Namespace:
    return peer.build_parser().parse_args(flags(*words))


def images_of(coco_path: Path, name: str, min_side: int, max_side: int) -> CocoDataset:
    return load_set(coco_path, name, min_side=min_side, max_side=max_side, max_pixels=10**8)[1]


def test_trains_and_writes_results(coco_path, weights, tmp_path, capsys):
    path = tmp_path / "new" / "peer.json"
    assert peer.main(flags(coco_path, weights, "--output_path", str(path))) == 0
    out = capsys.readouterr().out
    assert "75 of 100 tensors loaded" in out
    assert "random: layer4" in out
    assert "Epoch 0 took" in out
    assert " Average Precision  (AP)" in out
    assert path.read_text().startswith("[")


@pytest.mark.parametrize("is_training", [True, False])
def test_images_are_taken_as_they_are(is_training):
    model = torchvision_model(18, 2).train(is_training)
    images, _ = model.transform([torch.rand(3, 64, 90), torch.rand(3, 50, 96)])
    assert images.tensors.shape == (2, 3, 64, 96)
    assert images.image_sizes == [(64, 90), (50, 96)]


@pytest.mark.parametrize("label", [0, 1])
def test_no_label_is_taken_for_a_background(label):
    """Each is learned, and found when its logits are high."""
    model = torchvision_model(18, 2)
    bias = torch.full((9, 2), -9.0)
    bias[:, label] = 3
    nn.init.zeros_(model.head.classification_head.cls_logits.weight)
    model.head.classification_head.cls_logits.bias.data = bias.flatten()
    targets = [{"boxes": torch.tensor([[0.0, 0, 32, 32]]), "labels": torch.tensor([label])}]
    image = [torch.rand(3, 64, 64)]
    right, wrong = (
        model.train()(image, [{**targets[0], "labels": torch.tensor([one])}])["classification"]
        for one in (label, 1 - label)
    )
    assert right < wrong
    with torch.no_grad():
        assert set(model.eval()(image)[0]["labels"].tolist()) == {label}


def test_detections_are_of_original_pixels(coco_path, weights):
    args = arguments(coco_path, weights, "--min_side", "128", "--max_side", "192")
    dataset = images_of(coco_path, "val", 128, 192)  # twice their size

    class Finds(nn.Module):
        def forward(self, images):
            assert all(image.min() >= 0 and 0.5 < image.max() <= 1 for image in images)
            box = torch.tensor([[64.0, 32, 128, 96]])
            return [
                {"boxes": box[:count], "scores": torch.tensor([0.9])[:count], "labels": torch.tensor([1])[:count]}
                for count in (1, 0)[: len(images)]
            ]

    rows = rows_of(peer.detect_all(Finds(), dataset, args), dataset.annotations)
    assert [row["image_id"] for row in rows] == [1, 2, 3]  # of batches of equal shape: 1 and 4, 2 and 5, 3
    assert rows[0] == {"image_id": 1, "category_id": 2, "bbox": [32, 16, 32, 32], "score": pytest.approx(0.9)}


def test_trains_at_the_schedules_rates_on_images_without_padding(coco_path, weights, monkeypatch):
    seen = []

    def step(model, optimizer, batch, rate, clip_norm):
        shapes = [list(image.shape[1:]) for image in peer._images(batch)]
        seen.append((rate, clip_norm, batch.rows.tolist()))
        assert shapes == batch.sizes.tolist()
        return 1.0

    monkeypatch.setattr(peer, "_step", step)
    args = arguments(coco_path, weights, "--epochs", "2", "--milestones", "1", "--seed", "5")
    dataset = images_of(coco_path, "train", 64, 96)
    peer.train(peer.build_model(args, 2), dataset, args)
    assert [rate for rate, *_ in seen] == pytest.approx([1e-4] * 4 + [1e-5] * 4)
    assert {clip_norm for _, clip_norm, _ in seen} == {0.1}
    loader, sampler = training_loader(dataset, LoaderSettings(2), seed=5)
    for epoch in (0, 1):
        sampler.start_at(epoch)
        wanted = [rows for *_, rows in seen[4 * epoch : 4 * epoch + 4]]
        assert [loaded.batch.rows.tolist() for loaded in loader] == wanted


def test_a_step_is_clipped_and_leaves_batch_norm_alone(coco_path, weights):
    model = peer.build_model(arguments(coco_path, weights), 2).train()
    loader, _ = training_loader(images_of(coco_path, "train", 64, 96), LoaderSettings(2), seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # From rest, a step of SGD with momentum is the rate times the gradient.
    peer._step(model, build_optimizer(model, "sgd", 1.0, 0.0), next(iter(loader)).batch, 1.0, 1e-3)
    moved = {name: (value - before[name]).norm() for name, value in model.state_dict().items()}
    assert torch.stack(list(moved.values())).norm() == pytest.approx(1e-3, rel=1e-3)
    assert moved["backbone.body.conv1.weight"] > 0
    assert all(moved[name] == 0 for name in moved if ".bn" in name or "running" in name)


def test_anchors_stay_in_float32_in_lower_precision(coco_path, weights, monkeypatch):
    monkeypatch.setattr(peer, "choose_precision", lambda *_: torch.bfloat16)
    model = peer.build_model(arguments(coco_path, weights), 2).eval()
    dtypes = []
    model.anchor_generator.register_forward_hook(lambda module, inputs, outputs: dtypes.append(outputs[0].dtype))
    model.head.register_forward_hook(lambda module, inputs, outputs: dtypes.append(outputs["cls_logits"].dtype))
    inner = model.head.classification_head
    inner.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    with torch.no_grad():
        model([torch.rand(3, 64, 64)])
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32]


def test_a_loss_that_is_not_finite_ends_it(coco_path, weights, monkeypatch):
    monkeypatch.setattr(peer, "_step", lambda *_: math.nan)
    args = arguments(coco_path, weights)
    with pytest.raises(Diverged, match="Epoch 0, iteration 1: the loss is nan"):
        peer.train(peer.build_model(args, 2), images_of(coco_path, "train", 64, 96), args)

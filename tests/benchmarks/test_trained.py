import argparse
from pathlib import Path

import pytest
import torch
from support.built import once, small_network
from support.length import IS_LONG
from torch import nn

from benchmarks.speed import trained
from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint


def arguments(coco_path: Path, head_norm: str = "none") -> argparse.Namespace:
    """Flags of a benchmark with a checkpoint that has something to detect."""
    model = small_network(channels=32, head_norm=head_norm)
    for head in (model.classification_head, model.regression_head):
        nn.init.trunc_normal_(head.output.weight, std=0.01)
    nn.init.constant_(model.classification_head.output.bias, -3.2)
    path = coco_path / "model.pt"
    save_checkpoint(Checkpoint(model.state_dict(), model.architecture, ["cat", "dog"], [1, 2], 64, 96, 2, 1, {}), path)
    cpu = torch.device("cpu")
    return argparse.Namespace(
        checkpoint_path=path,
        coco_path=coco_path,
        num_images=4,
        height=64,
        width=96,
        batch_size=2,
        device=cpu,
        precision="float32",
        num_candidates=1000,
    )


def test_torchvision_detects_the_same_with_the_same_weights(coco_path):
    args = arguments(coco_path)

    ours, theirs = trained.our_detection(args)(), trained.torchvision_detection(args)()

    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["scores"]) > 20
        torch.testing.assert_close(mine["scores"], other["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(mine["boxes"], other["boxes"], atol=1e-2, rtol=0)
        assert mine["labels"].equal(other["labels"])
    assert "as many of each in 4 of 4 images" in trained.agreement(ours, theirs)


def test_candidates_are_counted_by_image_and_by_level(coco_path):
    args = arguments(coco_path)
    args.num_candidates = 1
    ours, theirs = trained.our_detection(args)(), trained.torchvision_detection(args)()
    assert [len(found["scores"]) for found in ours] == [1] * 4
    assert all(1 < len(found["scores"]) <= 5 for found in theirs)


def test_a_network_that_torchvision_has_not_has_no_twin(coco_path):
    assert trained.has_twin(arguments(coco_path))
    assert not trained.has_twin(arguments(coco_path, head_norm="group"))


@pytest.mark.openvino
@pytest.mark.skipif(not IS_LONG, reason="the export alone takes a quarter of a minute")
def test_exported_files_detect_the_same(coco_path, monkeypatch):
    for name in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    monkeypatch.setattr(trained, "onnx_bytes", once(trained.onnx_bytes))
    args = arguments(coco_path)
    ours = trained.our_detection(args)()
    for form in ("onnx", "openvino"):
        theirs = trained.exported_detection(args, form)()
        assert "as many of each in 4 of 4 images" in trained.agreement(ours, theirs)


def test_agreement_counts_the_images_that_differ():
    def found(*scores: float) -> dict[str, torch.Tensor]:
        return {
            "boxes": torch.zeros(len(scores), 4),
            "scores": torch.tensor(scores),
            "labels": torch.zeros(len(scores), dtype=torch.int64),
        }

    text = trained.agreement([found(0.5), found(0.9, 0.25)], [found(0.5), found(0.75)])

    assert text.startswith("Detections: 3 and 2, as many of each in 1 of 2 images; there the boxes differ by at most")


def test_predict_writes_pictures_and_prints_nothing(coco_path, capsys):
    args = arguments(coco_path)
    args.precision = "auto"

    assert trained.predict_command(args)() is None

    assert capsys.readouterr().out == ""

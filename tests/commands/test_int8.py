"""python -m retinanet.export --int8 writes quantised files that lose little AP, or none."""

import json
from pathlib import Path

import pytest
from support.built import once
from support.checkpoint_files import random_checkpoint
from support.length import IS_LONG

from retinanet import Detector
from retinanet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from retinanet.commands import export as command
from retinanet.export.onnx_file import onnx_bytes

EXPORT = "retinanet/export/__main__"
BEFORE, AFTER = "classification_head.tower.2", "classification_head.tower.4"  # layers before and after the outlier
exported = once(onnx_bytes)
pytestmark = [pytest.mark.usefixtures("narrow_network"), pytest.mark.openvino]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """Provides a checkpoint with an outlier, which is exported once for all tests, since that takes seconds.

    The outlier is one channel, 10,000 times as large as the others, between two layers of a head.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "onnx_bytes", exported)
    path = random_checkpoint(tmp_path / "best.pt", score_threshold=0.25)
    outlier = load_checkpoint(path)
    for part in ("weight", "bias"):
        outlier.model[f"{BEFORE}.{part}"][0] *= 1e4
    outlier.model[f"{AFTER}.weight"][:, 0] /= 1e4
    save_checkpoint(outlier, path)
    return path


@pytest.fixture
def own_detections_as_objects(coco_path, checkpoint):
    """Makes the checkpoint's own detections the objects of train and val, so that its AP is high."""
    detector = Detector(checkpoint, "cpu", threshold=0.05, precision="float32")  # as export computes
    for name in ("train", "val"):
        path = coco_path / f"{name}.json"
        content = json.loads(path.read_text())
        content["annotations"] = []
        for image in content["images"]:
            found = detector(coco_path / "images" / name / image["file_name"])
            for (x1, y1, x2, y2), label in list(zip(found.boxes.tolist(), found.labels.tolist(), strict=True))[:6]:
                box = [x1, y1, x2 - x1, y2 - y1]
                entry = {"id": len(content["annotations"]) + 1, "image_id": image["id"], "iscrowd": 0}
                content["annotations"].append({**entry, "category_id": label + 1, "bbox": box, "area": box[2] * box[3]})
        path.write_text(json.dumps(content))


@pytest.mark.usefixtures("own_detections_as_objects")
@pytest.mark.parametrize("form", ["onnx", "openvino"] if IS_LONG else ["onnx"])
def test_int8_keeps_a_harmful_layer_in_float(script, coco_path, checkpoint, form):
    for name in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    how = ("--checkpoint_path", checkpoint, "--coco_path", coco_path, "--format", form, "--int8")

    run = script(EXPORT, *how, "--max_ap_loss", 0.75)

    assert (run.code, run.err) == (0, ""), run.out
    tried = [line for line in run.out.splitlines() if line.startswith("INT8, ")]
    assert [line.split(":")[0] for line in tried] == ["INT8, no layer in float", f"INT8, 1 of 38 in float ({AFTER})"]
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[form]
    detector = Detector(f"best_int8{suffix}", "cpu", threshold=0.06)
    assert len(detector(coco_path / "images" / "val" / "1.png").scores) > 5
    for title in ("checkpoint", "float32 file", "INT8 file"):
        assert any(line.startswith(title) for line in run.out.splitlines())


@pytest.mark.usefixtures("own_detections_as_objects")
def test_int8_that_costs_too_much_is_not_written(script, coco_path, checkpoint):
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--coco_path", coco_path, "--int8")

    assert run.code == 1
    assert "Not written: with up to half of the layers in float, the file still loses more than 0.005 AP" in run.out
    assert not list(Path().glob("*.onnx"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--int8", "--no_verify"), "--no_verify: --int8 has to measure the AP"),
        (("--max_ap_loss", 0.1), "--max_ap_loss only applies with --int8"),
        (("--format", "safetensors", "--int8"), "--int8 only applies to --format onnx and openvino"),
        (("--int8", "--calibration_set", "nothing"), "nothing.json"),
        (("--format", "openvino", "--output_path", "a.onnx"), "must end in .xml"),
    ],
)
def test_mistakes_with_int8(script, coco_path, checkpoint, flags, message):
    run = script(EXPORT, "--checkpoint_path", checkpoint, "--coco_path", coco_path, *flags)

    assert (run.code, run.err.count("\n")) == (2, 1)
    assert message in run.err
    assert not list(Path().glob("best[._]*[!t]"))

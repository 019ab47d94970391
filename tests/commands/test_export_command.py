"""python -m retinanet.export writes files, and predict uses them, as a user runs both."""

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_checkpoint

from retinanet import Detector
from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.coco.score_thresholds import threshold_below
from retinanet.commands import export as command
from retinanet.commands.export import export
from retinanet.export.verify import Comparison
from retinanet.settings.export import export_settings

EXPORT, PREDICT = "retinanet/export/__main__", "retinanet/predict/__main__"
pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return random_checkpoint(tmp_path / "best.pt", score_threshold=0.25)


def test_onnx_detects_what_the_checkpoint_detects(script, coco_path, checkpoint, capfd):
    pytest.importorskip("onnxscript")
    session = pytest.importorskip("onnxruntime")

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--coco_path", coco_path)

    assert (run.code, run.err) == (0, "")
    assert "Verified on 5 images: " in run.out
    image = coco_path / "images" / "val" / "1.png"
    ours, theirs = (Detector(path, "cpu", threshold=0.06)(image) for path in (checkpoint, "best.onnx"))
    assert len(ours.scores) > 5
    assert_near(theirs, ours)
    for thresholds in ({None: 0.06, "red": 0.3}, {"red": 0.06}):  # "green" above 0.06 and above the file's own, 0.25
        by_class = [Detector(path, "cpu", threshold=thresholds)(image) for path in (checkpoint, "best.onnx")]
        assert_near(by_class[1], by_class[0])
        lowest = np.where(ours.labels == 0, thresholds["red"], thresholds.get(None, 0.25))
        assert np.array_equal(by_class[0].scores, ours.scores[ours.scores > lowest.astype(np.float32)])
    metadata = session.InferenceSession("best.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["retinanet.class_names"]) == load_checkpoint(checkpoint).class_names
    assert Detector("best.onnx").threshold == 0.25
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.open(image).resize((96, 64)).save("street.jpg", exif=exif)
    page = (Path(__file__).parent.parent.parent / "docs" / "export.md").read_text()
    capfd.readouterr()
    exec(page.split("```python\n")[1].split("```")[0], {})  # the example, with another way to resize
    assert abs(len(capfd.readouterr().out.splitlines()) - len(Detector("best.onnx", "cpu")("street.jpg").scores)) <= 3
    least = float(theirs.scores[len(theirs.scores) // 2])
    for saved in (threshold_below(least), math.nextafter(least, 0)):  # as this version and earlier ones write it
        with_threshold("best.onnx", saved, "other.onnx")
        assert np.array_equal(Detector("other.onnx")(image).scores, theirs.scores[theirs.scores >= least])
    for words in ((0.01,), (0.3, "red=0.01")):
        run = script(PREDICT, image, "--checkpoint_path", "best.onnx", "--threshold", *words)
        assert run.code == 2
        assert "--threshold 0.01 is below 0.05, at which best.onnx was exported" in run.err


def with_threshold(path, threshold, place):
    """The ONNX file with another best threshold in its metadata, written to `place`."""
    onnx = pytest.importorskip("onnx")
    content = onnx.load(path)
    for fact in content.metadata_props:
        if fact.key == "retinanet.threshold":
            fact.value = json.dumps(threshold)
    onnx.save(content, place)


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (160, 64)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_file_takes_every_size_and_batch(tmp_path_factory, size, batch_size):
    pytest.importorskip("onnxscript")
    from retinanet.checkpoints.checkpoint import build_model
    from retinanet.detector.anchors import anchors_for
    from retinanet.detector.detect import detect, find_candidates
    from retinanet.detector.settings import AnchorShapes, DetectionSettings
    from retinanet.export.onnx_file import onnx_bytes
    from retinanet.predict.runners import session_of

    folder = tmp_path_factory.getbasetemp()
    shapes = AnchorShapes(3.0, (0.5, 2.0), (1.0,))
    path = folder / "shared.pt"
    settings = DetectionSettings(num_candidates=300, max_detections=40)
    if not path.exists():  # the export takes seconds, and all cases share it
        random_checkpoint(path, channels=32, head_norm="group", iou_branch=True, anchors=shapes)
    saved = load_checkpoint(path)
    model = build_model(saved, path).eval()
    if not (folder / "shared.onnx").exists():
        (folder / "shared.onnx").write_bytes(onnx_bytes(model, saved, settings))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, generator=draw)
    sizes = torch.tensor([[size[0] - 5, size[1] - 9]] * batch_size)

    feed = {"images": images.numpy(), "sizes": sizes.numpy()}
    outputs = session_of(folder / "shared.onnx", "cpu").run(None, feed)
    boxes, scores, labels, *before_nms = map(torch.from_numpy, outputs)

    with torch.no_grad():
        predictions, anchors = model(images), anchors_for(*size, torch.device("cpu"), shapes)
    wanted = detect(predictions, anchors, sizes, settings)
    assert (wanted.labels >= 0).sum() > 10 * batch_size
    torch.testing.assert_close(scores, wanted.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, wanted.boxes, atol=0.1, rtol=0)
    assert labels.equal(wanted.labels)
    candidates = find_candidates(predictions, anchors, sizes, settings.num_candidates)
    count = candidates.scores.shape[1]
    assert [list(part.shape[:2]) for part in before_nms] == [[batch_size, settings.num_candidates]] * 3
    torch.testing.assert_close(before_nms[0][:, :count], candidates.boxes, atol=0.1, rtol=0)
    torch.testing.assert_close(before_nms[1][:, :count], candidates.scores, atol=1e-4, rtol=0)
    assert (before_nms[2][:, :count] == candidates.labels).float().mean() > 0.98  # equal scores may change places
    assert (before_nms[1][:, count:] == 0).all()


OWN = {"num_candidates": 400, "nms_iou": 0.4, "max_detections": 60}  # settings of a file that aren't the defaults


@pytest.fixture
def files(checkpoint, tmp_path_factory) -> tuple[Path, Path, Path]:
    """A checkpoint, its ONNX file, and that as earlier versions wrote it: without the candidates."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.getbasetemp() / "exported"
    paths = folder / "best.pt", folder / "best.onnx", folder / "earlier.onnx"
    if not folder.exists():  # the export takes seconds
        import onnx

        folder.mkdir()
        shutil.copy(checkpoint, folder)
        flags = [text for name, value in (OWN | {"threshold": 0.1}).items() for text in (f"--{name}", str(value))]
        assert export(export_settings(["--checkpoint_path", str(paths[0]), "--no_verify", *flags])) == 0
        proto = onnx.load(paths[1])
        del proto.graph.output[3:]
        onnx.save(proto, paths[2])
    return paths


def assert_near(theirs, ours):
    """Checks names, boxes within 0.1 px and scores within 1e-4; rows of nearly equal scores may change places."""
    assert len(theirs.scores) == len(ours.scores)
    is_near = (np.abs(theirs.boxes[:, None] - ours.boxes) <= 0.1).all(axis=2)
    is_near &= np.abs(theirs.scores[:, None] - ours.scores) <= 1e-4
    is_near &= np.array(theirs.names)[:, None] == np.array(ours.names)
    pairs = is_near.argmax(axis=1)
    assert is_near[np.arange(len(pairs)), pairs].all()
    assert len(set(pairs.tolist())) == len(pairs)


LOOKS = [{}, {"flip_test": True}, {"test_sides": [64, 96]}, {"tile": 64}, {"tile": 64, "flip_test": True}]


def test_every_look_finds_in_the_file_what_it_finds_in_the_checkpoint(files, coco_path):
    checkpoint, exported, _ = files
    image = Image.open(coco_path / "images" / "val" / "1.png").resize((150, 130))
    for looks in LOOKS:
        for wanted in ({}, {"threshold": 0.3, "nms_iou": 0.7, "max_detections": 500}):
            ours = Detector(checkpoint, "cpu", **(OWN | {"threshold": 0.25} | wanted), **looks)(image)
            assert len(ours.scores) > 40
            assert_near(Detector(exported, "cpu", **wanted, **looks)(image), ours)


def test_a_file_of_an_earlier_version_is_used_as_it_is(files, coco_path):
    checkpoint, _, earlier = files
    image = Image.open(coco_path / "images" / "val" / "1.png").resize((150, 130))
    ours = Detector(checkpoint, "cpu", **OWN)(image)
    assert len(ours.scores) > 7
    assert_near(Detector(earlier, "cpu")(image), ours)
    assert_near(Detector(earlier, "cpu", **OWN)(image), ours)
    assert len(Detector(earlier, "cpu", max_detections=7)(image).scores) == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--flip_test",), "--flip_test: {} was exported by an earlier version and lacks the candidates before NMS"),
        (("--test_sides", 64, 96), "--test_sides: {} was exported by an earlier version"),
        (("--tile", 64), "Export it again with python -m retinanet.export, or use the checkpoint"),
        (("--nms_iou", 0.5), "--nms_iou 0.5: {} was exported with 0.4, which is fixed in it. Export it with --nms_iou"),
        (("--max_detections", 100), "--max_detections 100 is above 60, with which an earlier version exported {}"),
        (("--num_candidates", 1000), "--num_candidates 1000: {} was exported with 400"),
        (("--threshold", 0.01), "--threshold 0.01 is below 0.1, at which {} was exported"),
        (("--precision", "bfloat16"), "--precision bfloat16: {} computes in float32"),
    ],
)
def test_what_a_file_cannot_follow_is_refused(script, coco_path, files, flags, message):
    _, exported, earlier = files
    image = coco_path / "images" / "val" / "1.png"
    is_of_every_file = flags[0] in ("--num_candidates", "--threshold", "--precision")
    for path in (exported, earlier):
        run = script(PREDICT, image, "--checkpoint_path", path, *flags)

        if path == earlier or is_of_every_file:
            assert (run.code, run.err.count("\n"), message.format(path) in run.err) == (2, 1, True), run.err
            assert not Path("predictions").exists()
        else:
            assert (run.code, run.err) == (0, "")
            shutil.rmtree("predictions")


def test_what_differs_is_not_written(script, coco_path, checkpoint, monkeypatch):
    monkeypatch.setattr(command, "onnx_bytes", lambda *_: b"")
    monkeypatch.setattr(command, "onnx_runner", lambda *_: None)
    monkeypatch.setattr(command, "compare", lambda *_: Comparison(5, (10, 9), 0.5, 2e-3, 1, (0.5, 0.4)))

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--coco_path", coco_path)

    assert run.code == 1
    assert (
        "Not written: 1 detection without a counterpart; boxes differ by up to 0.5 px; scores differ by up to 0.002; "
        "AP is 0.4000 instead of 0.5000"
    ) in run.out
    assert not list(Path().glob("*.onnx*"))


def test_safetensors_rebuild_the_network(script, coco_path, checkpoint):
    pytest.importorskip("safetensors")
    run = script(EXPORT, "--checkpoint_path", checkpoint, "--format", "safetensors")

    assert (run.code, run.err) == (0, "")
    assert json.loads(Path("best.json").read_text())["class_names"] == load_checkpoint(checkpoint).class_names
    image = coco_path / "images" / "val" / "1.png"
    ours, theirs = (Detector(path, "cpu")(image) for path in (checkpoint, "best.safetensors"))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    how = ("--coco_path", coco_path, "--set_name", "val", "--num_draws", 0, "--workers", 0)
    assert script("test", "--checkpoint_path", "best.safetensors", *how).code == 0


def test_safetensors_hold_the_averaged_weights(script, tmp_path):
    pytest.importorskip("safetensors")
    path = random_checkpoint(tmp_path / "best.pt")
    average = {name: value + 1 for name, value in load_checkpoint(path).model.items()}
    random_checkpoint(path, ema=average)

    assert script(EXPORT, "--checkpoint_path", path, "--format", "safetensors").code == 0

    got = load_checkpoint(tmp_path / "best.safetensors")
    assert got.ema is None
    assert all(torch.equal(got.model[name], value) for name, value in average.items())


def test_a_folder_may_be_given_instead_of_a_file(script, checkpoint):
    pytest.importorskip("safetensors")
    Path("there").mkdir()
    for folder in ("there", "new"):
        run = script(EXPORT, "--checkpoint_path", checkpoint, "--format", "safetensors", "--output_path", folder)
        assert run.code == 0, run.err
        assert (Path(folder) / "best.safetensors").is_file()


DAMAGES = [lambda data: b"", lambda data: data[:100], lambda data: b"\xff" * 50, lambda data: data[:-9]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_safetensors(script, checkpoint, damage):
    pytest.importorskip("safetensors")
    assert script(EXPORT, "--checkpoint_path", checkpoint, "--format", "safetensors").code == 0
    path = Path("best.safetensors")
    path.write_bytes(damage(path.read_bytes()))

    run = script(PREDICT, "best.pt", "--checkpoint_path", path)

    assert run.code == 2
    assert "best.safetensors: not a file of python -m retinanet.export, or damaged" in run.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--format", "torchscript"), "--format"),
        (("--output_path", "model.pt"), "a file of --format onnx must end in .onnx"),
        (("--format", "safetensors", "--threshold", 0.1), "--threshold only applies to --format onnx"),
        (("--coco_path", "nowhere"), "--no_verify skips that"),
        (("--checkpoint_path", "nowhere.pt"), "nowhere.pt: no such file"),
        (("--output_path", "no/folder/a.onnx", "--coco_path", "nowhere"), "no such data folder"),
    ],
)
def test_mistakes_end_in_one_message(script, checkpoint, flags, message):
    run = script(EXPORT, "--checkpoint_path", checkpoint, *flags)

    assert run.code == 2
    assert message in run.err
    assert run.err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["best.pt"]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(script, checkpoint, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--no_verify")

    assert run.code == 2
    assert f"needs {missing}. Install what it needs with: pip install onnx onnxscript onnxruntime" in run.err


def test_without_a_library_for_cocos_table(script, coco_path, checkpoint, monkeypatch):
    find = importlib.util.find_spec
    missing = ("hotcoco", "pycocotools")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in missing else find(name, *more))

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--coco_path", coco_path)

    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert "COCO's table needs hotcoco or pycocotools, and none is installed. Run pip install pycocotools" in run.err
    assert "--no_verify skips that" in run.err
    assert not list(Path().glob("*.onnx*"))


def test_without_safetensors(script, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--format", "safetensors")

    assert run.code == 2
    assert "safetensors is not installed. Install it with: pip install safetensors" in run.err
    assert not Path("best.safetensors").exists()


def test_an_onnx_file_of_another_program(script, checkpoint):
    pytest.importorskip("onnxruntime")
    Path("other.onnx").write_bytes(b"no")

    run = script(PREDICT, checkpoint, "--checkpoint_path", "other.onnx")

    assert run.code == 2
    assert "other.onnx: not an ONNX file of python -m retinanet.export, or damaged" in run.err

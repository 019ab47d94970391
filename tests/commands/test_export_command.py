"""python -m retinanet.export writes files, and predict uses them, as a user runs both."""

import importlib.util
import json
import math
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image
from support.built import once
from support.checkpoint_files import random_checkpoint
from support.length import IS_LONG

from retinanet import Detector as AnyDetector
from retinanet.checkpoints.checkpoint import build_model, load_checkpoint
from retinanet.coco.score_thresholds import threshold_below
from retinanet.commands import export as command
from retinanet.commands.export import export
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import detect, find_candidates
from retinanet.detector.settings import AnchorShapes, DetectionSettings
from retinanet.export.onnx_file import metadata_of, onnx_bytes
from retinanet.export.openvino_file import openvino_model
from retinanet.export.verify import Comparison
from retinanet.predict.networks import CANDIDATES, DETECTIONS
from retinanet.predict.runners import onnx_runner, openvino_runner
from retinanet.settings.export import export_settings

Detector = partial(AnyDetector, precision="float32")  # auto may be bfloat16, which ONNX files can't be

EXPORT, PREDICT = "retinanet/export/__main__", "retinanet/predict/__main__"
pytestmark = [pytest.mark.usefixtures("narrow_network"), pytest.mark.openvino]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return random_checkpoint(tmp_path / "best.pt", score_threshold=0.25)


with_default_settings = once(onnx_bytes)  # of `checkpoint`; an export takes seconds


def test_onnx_detects_what_the_checkpoint_detects(script, coco_path, checkpoint, monkeypatch):
    pytest.importorskip("onnxscript")
    session = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(command, "onnx_bytes", with_default_settings)

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


GROUP_NORM = {"channels": 32, "head_norm": "group"}  # so that scores aren't all near 1
NETWORKS = {
    "1 class": GROUP_NORM | {"class_names": ["red"], "category_ids": [1]},
    "80 classes, IoU branch, own anchors": GROUP_NORM
    | {"class_names": [f"class {id}" for id in range(80)], "category_ids": list(range(80))}
    | {"iou_branch": True, "anchors": AnchorShapes(3.0, (0.5, 2.0), (1.0,))},
}


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (160, 64), (32, 96)])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("program", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("network", NETWORKS if IS_LONG else ["80 classes, IoU branch, own anchors"])
def test_one_file_takes_every_size_and_batch(network, program, batch_size, size):
    settings, model, runners = exported(network)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, generator=draw)
    sizes = torch.tensor([[size[0] - 5, size[1] - 9]] * batch_size)

    boxes, scores, labels, *before_nms = runners[program].run((*DETECTIONS, *CANDIDATES), images, sizes)

    with torch.no_grad():
        predictions, anchors = model(images), anchors_for(*size, torch.device("cpu"), model.architecture.anchors)
    wanted = detect(predictions, anchors, sizes, settings)
    assert (wanted.labels >= 0).sum() > 5 * batch_size
    torch.testing.assert_close(scores, wanted.scores, atol=1e-4, rtol=0)
    is_sure = wanted.scores - wanted.scores.roll(-1, 1) > 1e-4  # scores that are nearly equal may change places
    is_sure &= is_sure.roll(1, 1)
    torch.testing.assert_close(boxes[is_sure], wanted.boxes[is_sure], atol=0.1, rtol=0)
    assert labels[is_sure].equal(wanted.labels[is_sure])
    assert is_sure.float().mean() > 0.2
    candidates = find_candidates(predictions, anchors, sizes, settings.num_candidates)
    count = candidates.scores.shape[1]
    assert [list(part.shape[:2]) for part in before_nms] == [[batch_size, settings.num_candidates]] * 3
    torch.testing.assert_close(before_nms[1][:, :count], candidates.scores, atol=1e-4, rtol=0)
    assert (before_nms[2][:, :count] == candidates.labels).float().mean() > 0.8
    assert (before_nms[1][:, count:] == 0).all()


@cache
def exported(network):
    """Returns the settings, the model and the runners of a network's exported files; the export takes seconds."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    settings = DetectionSettings(num_candidates=300, max_detections=40)
    with TemporaryDirectory() as folder:
        saved = load_checkpoint(random_checkpoint(Path(folder) / "best.pt", **NETWORKS[network]))
    model = build_model(saved, Path("best.pt")).eval()
    content = onnx_bytes(model, saved, settings)
    openvino = openvino_runner(openvino_model(content, metadata_of(saved, settings)), "cpu")
    return settings, model, {"onnxruntime": onnx_runner(content, "cpu"), "openvino": openvino}


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
        (("--format", "safetensors", "--threshold", 0.1), "--threshold only applies to --format onnx and openvino"),
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
    told = "The COCO table needs hotcoco or pycocotools, and neither is installed. Run pip install pycocotools"
    assert told in run.err
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


@pytest.fixture
def both_files(checkpoint, tmp_path_factory) -> list[str]:
    """Provides the checkpoint's ONNX and OpenVINO files, exported once for all tests, since that takes seconds."""
    for name in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    folder = tmp_path_factory.getbasetemp() / "both"
    if not folder.exists():
        folder.mkdir()
        shutil.copy(checkpoint, folder)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(command, "onnx_bytes", with_default_settings)
            for form in ("onnx", "openvino"):
                how = ["--checkpoint_path", str(folder / "best.pt"), "--format", form, "--no_verify"]
                assert export(export_settings(how)) == 0
    for path in folder.iterdir():
        shutil.copy(path, path.name)
    return ["best.onnx", "best.xml"]


def test_both_files_in_all_commands(script, coco_path, checkpoint, both_files):
    image = coco_path / "images" / "val" / "1.png"
    wanted = Detector(checkpoint, "cpu", threshold=0.06)(image)
    how = ("--coco_path", coco_path, "--set_name", "val", "--num_draws", 0, "--workers", 0)
    of_checkpoint = script("test", "--checkpoint_path", checkpoint, *how, "--flip_test")
    for path in both_files:
        assert_near(Detector(path, "cpu", threshold=0.06)(image), wanted)
        assert script(PREDICT, image, "--checkpoint_path", path).code == 0
        run = script("test", "--checkpoint_path", path, *how, "--flip_test")
        assert (run.code, run.err) == (0, "")
        table = [line for line in run.out.splitlines() if "@[" in line]
        assert table == [line for line in of_checkpoint.out.splitlines() if "@[" in line]
        assert f"Exported file: {path}" in run.out
        for flags in (("--raw_weights",), ("--num_candidates", 5), ("--threshold", 0.01)):
            refused = script("test", "--checkpoint_path", path, *how, *flags)
            assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert script(PREDICT, image, "--checkpoint_path", "best.xml", "--precision", "bfloat16").code == 0
    refused = script(PREDICT, image, "--checkpoint_path", "best.xml", "--precision", "float16")
    assert (refused.code, "float16 needs a GPU" in refused.err) == (2, True)


def test_threads_share_a_detector(coco_path, both_files):
    images = [coco_path / "images" / "val" / f"{number}.png" for number in range(1, 6)] * 4
    for path in both_files:
        detector = Detector(path, "cpu", threshold=0.06)
        wanted = [detector(image).scores for image in images]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda image, detector=detector: detector(image).scores, images))
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("damage", ["no weights", "no graph", "other graph"])
def test_damaged_openvino_files(script, checkpoint, both_files, damage):
    if damage == "no weights":
        Path("best.bin").unlink()
    else:
        Path("best.xml").write_text("" if damage == "no graph" else "<net/>")

    run = script(PREDICT, "best.pt", "--checkpoint_path", "best.xml")

    assert run.code == 2
    message = run.err.splitlines()[-1]  # OpenVINO may have printed its own before
    assert "best.xml: not an OpenVINO file of python -m retinanet.export, or damaged" in message


@pytest.mark.parametrize("program", [0, 1])
def test_the_example_finds_what_predict_finds_on_any_photograph(both_files, program, tmp_path, capfd):
    """The example in docs/export.md, on photographs of each orientation, some a pixel high, at any size."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    code = compile(blocks[program] + blocks[2], "docs/export.md", "exec")
    detector, draw = Detector(both_files[program], "cpu"), np.random.default_rng(0)
    for number, size in enumerate([(96, 64), (96, 64), (96, 64), (64, 96), (64, 64), (64, 96), (96, 64), (64, 96)], 1):
        compare_with_example(code, detector, draw, size, number, 0)
    for size in ((200, 1), (1, 77), (97, 61), (333, 250)):
        compare_with_example(code, detector, draw, size, 6, 3)
    capfd.readouterr()


def compare_with_example(code, detector, draw, size, orientation, most_missing):
    """Compares the example with `detector` on a photograph; if it is resized, which they do apart, some may differ."""
    exif = Image.Exif()
    exif[274] = orientation
    pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save("street.jpg", exif=exif, quality=95)
    names = {}
    exec(code, names)
    is_found = names["scores"] > names["facts"]["threshold"]
    wanted = detector("street.jpg")
    assert abs(int(is_found.sum()) - len(wanted.scores)) <= most_missing
    if not most_missing:
        np.testing.assert_allclose(names["scores"][is_found], wanted.scores, atol=1e-4)
        assert np.median(np.abs(names["boxes"][is_found] - wanted.boxes)) < 0.1


def test_without_openvino(script, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)

    run = script(EXPORT, "--checkpoint_path", checkpoint, "--format", "openvino", "--no_verify")

    assert run.code == 2
    assert (
        "--format openvino needs openvino. Install what it needs with: pip install onnx onnxscript openvino" in run.err
    )

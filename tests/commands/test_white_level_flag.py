"""The white level of a training reaches all that use its checkpoint."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scripts import TINY

from retinanet import Detector
from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.coco.results import write_results
from retinanet.detector.settings import DEFAULT_DETECTION
from retinanet.export.onnx_file import metadata_of

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def deep_path(coco_path, tmp_path, monkeypatch):
    """A data folder of 12-bit pictures in 16-bit files."""
    monkeypatch.chdir(tmp_path)
    for path in coco_path.glob("images/*/*.png"):
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(path)
    return coco_path


def test_train_and_check_data_say_how_much_of_the_range_is_used(script, deep_path):
    sizes = ("--min_side", 64, "--max_side", 96)
    run = script("retinanet/check_data/__main__", "--coco_path", deep_path, *sizes)
    assert "white_level_far: 1 (16-bit pictures that use less than half" in run.out
    run = script("retinanet/check_data/__main__", "--coco_path", deep_path, *sizes, "--white_level", 4095)
    assert "white_level" not in run.out
    train = ("train", "--coco_path", deep_path, "--epochs", 1, *TINY, "--workers", 0)
    run = script(*train)
    assert "Warning: 8 images with 16 bits per channel; the largest value, in 8 of them, is" in run.out
    assert "--white_level 4095 would fit" in run.out
    run = script(*train, "--white_level", 4095, "--output_path", "bright")
    assert "8 images with 16 bits per channel" in run.out
    assert "Warning: 8 pictures" not in run.out
    checkpoint = load_checkpoint(Path("bright/model_final.pt"))
    assert checkpoint.white_level == 4095
    assert metadata_of(checkpoint, DEFAULT_DETECTION)["white_level"] == 4095
    detector = Detector("bright/model_final.pt", "cpu")
    assert detector.read(deep_path / "images" / "val" / "1.png").max() > 100
    assert Detector("output/model_final.pt", "cpu").read(deep_path / "images" / "val" / "1.png").max() < 20


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("test", ("--from_results", "rows.json", "--report", "report")),
        ("test", ("--compare", "rows.json", "rows.json", "--report", "report")),
        (
            "retinanet/check_labels/__main__",
            ("--results", "rows.json", "--output_path", "report", "--train_set", "val", "--white_level", 4095),
        ),
    ],
)
def test_the_pictures_of_a_report_have_it_too(script, deep_path, program, flags):
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}]
    record = {"checkpoint": "best.pt", "epoch": 1, "settings": {"white_level": 4095}, "test_settings": {}}
    write_results(rows, Path("rows.json"), record)
    run = script(program, "--coco_path", deep_path, *flags)
    assert run.code == 0, run.err
    pictures = re.findall(r'"data:image/jpeg;base64,([^"]+)"', Path("report/report.html").read_text("utf-8"))
    assert len(pictures) == 5
    for picture in pictures:
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).max() > 100

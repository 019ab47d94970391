import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_checkpoint

from retinanet import Detector
from retinanet.data.images import read_upright
from retinanet.data.transforms import to_tensor
from retinanet.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def detector(tmp_path) -> Detector:
    return Detector(random_checkpoint(tmp_path / "best.pt"), "cpu", threshold=0.05)


def test_every_form_of_an_image_gives_the_same(detector, coco_path):
    path = coco_path / "images" / "val" / "2.png"
    picture = Image.open(path)
    wanted = detector(path)

    with open(path, "rb") as file:
        forms = [str(path), picture, np.asarray(picture), to_tensor(read_upright(path)), path.read_bytes(), file]
        forms.append(BytesIO(path.read_bytes()))
        found = [detector(form) for form in forms]
    for got_all in found:
        for got, want in zip(got_all, wanted, strict=True):
            assert np.array_equal(got, want)
    assert len(wanted.scores) > 3
    assert wanted.boxes.shape == (len(wanted.scores), 4)
    assert (wanted.boxes.dtype, wanted.scores.dtype, wanted.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (np.diff(wanted.scores) <= 0).all()
    assert wanted.names == [detector.class_names[label] for label in wanted.labels]
    width, height = picture.size
    assert (wanted.boxes >= 0).all()
    assert (wanted.boxes <= np.array([width, height] * 2) + 1e-3).all()


def test_an_array_may_be_any_view(detector, coco_path):
    pixels = np.asarray(Image.open(coco_path / "images" / "val" / "2.png").convert("RGB"))
    wanted = detector(pixels)
    bgr = pixels[..., ::-1].copy()
    mirrored, upside_down = pixels[:, ::-1].copy(), pixels[::-1].copy()
    planes = pixels.transpose(2, 0, 1).copy()
    larger = np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)
    locked = pixels.copy()
    locked.flags.writeable = False
    views = [bgr[..., ::-1], mirrored[:, ::-1], upside_down[::-1], planes.transpose(1, 2, 0), larger[::2, ::2], locked]
    for form in [*views, np.asfortranarray(pixels), pixels.view(np.recarray)]:
        for got, want in zip(detector(form), wanted, strict=True):
            assert np.array_equal(got, want)
    grey = pixels[..., 0].copy()
    for got, want in zip(detector(grey[::-1, ::-1]), detector(grey[::-1, ::-1].copy()), strict=True):
        assert np.array_equal(got, want)
    assert len(wanted.scores) > 3


def test_a_list_gives_a_list(detector, coco_path):
    paths = sorted((coco_path / "images" / "val").iterdir())

    many = detector(paths)

    assert len(many) == 5
    for path, one in zip(paths, many, strict=True):
        alone = detector(path)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-3)
    assert detector([]) == []


def test_the_exif_orientation_is_applied(detector, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels).copy()).save(turned, exif=exif)

    assert np.array_equal(detector(turned).boxes, detector(pixels).boxes)
    assert np.array_equal(detector(Image.open(turned)).boxes, detector(pixels).boxes)


def test_threads_share_it(detector, coco_path):
    paths = sorted((coco_path / "images" / "train").iterdir())
    alone = [detector(path) for path in paths]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(detector, paths))

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_the_threshold_is_the_trainings_best_else_the_usual(tmp_path):
    assert Detector(random_checkpoint(tmp_path / "a.pt"), "cpu").threshold == 0.3
    assert Detector(random_checkpoint(tmp_path / "a.pt", score_threshold=0.125), "cpu").threshold == 0.125


def test_classes(tmp_path, coco_path):
    path, image = random_checkpoint(tmp_path / "best.pt"), coco_path / "images" / "val" / "1.png"
    everything = Detector(path, "cpu", threshold=0)(image)
    name = everything.names[0]

    assert set(everything.names) == set(Detector(path).class_names)
    assert set(Detector(path, "cpu", threshold=0, classes=[name])(image).names) == {name}
    both = Detector(path, "cpu", threshold=0, classes=[name])
    both.class_names = [name] * len(both.class_names)  # a set may have several classes of one name
    assert both._labels_of([name]) == list(range(len(both.class_names)))
    with pytest.raises(UserError, match=r"best.pt: has no class 'horse'. Its classes are"):
        Detector(path, "cpu", classes=["horse"])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
    ],
)
def test_other_arrays_are_refused(detector, image):
    with pytest.raises(TypeError, match="pass uint8"):
        detector(image)


def test_grey_arrays_and_single_pixels(detector):
    assert len(detector(np.zeros((40, 50), np.uint8)).boxes.shape) == 2
    assert len(detector(np.zeros((1, 1, 3), np.uint8)).boxes.shape) == 2


def test_the_example_of_the_docs(tmp_path, coco_path, monkeypatch, capsys):
    (tmp_path / "output").mkdir()
    random_checkpoint(tmp_path / "output" / "best.pt", score_threshold=0.05)
    Image.open(coco_path / "images" / "val" / "1.png").save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent.parent / "docs" / "predict.md").read_text()

    exec(page.split("```python\n")[1].split("```")[0], {})

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(Detector("output/best.pt")("street.jpg").scores) > 3


def test_its_messages_name_arguments_and_bytes_that_are_no_image(detector):
    with pytest.raises(UserError, match=r"^precision float16 needs a GPU"):
        Detector(detector.path, "cpu", precision="float16")
    detector.max_pixels = 5
    with pytest.raises(UserError, match="more than max_pixels 5"):
        detector(_png(3))
    with pytest.raises(UserError, match=r"^the image: can't be read as an image"):
        detector(b"no image")
    with pytest.raises(UserError, match=r"^run--v2/no--thing.jpg: no such image"):
        detector("run--v2/no--thing.jpg")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 1}, "tile: expected a whole number, 64 or more; got '1'"),
        ({"tile": -640}, "tile: expected a whole number, 0 or more; got '-640'"),
        ({"tile": 128, "overlap": 1.5}, "overlap: expected a number from 0 to 0.9; got '1.5'"),
        ({"test_sides": [64, 3]}, "test_sides: expected a whole number, 64 or more; got '3'"),
        ({"precision": "fp16"}, "precision: expected one of auto, float32, float16, bfloat16; got 'fp16'"),
        ({"device": "cuda:x"}, "device: expected auto, cpu, cuda, or cuda:0"),
        ({"batch_size": -1}, "batch_size: expected a whole number, 1 or more; got '-1'"),
        ({"num_candidates": -1}, "num_candidates: expected a whole number, 1 or more; got '-1'"),
        ({"nms_iou": 7.0}, "nms_iou: expected a number from 0 to 1; got '7.0'"),
        ({"max_detections": 0}, "max_detections: expected a whole number, 1 or more; got '0'"),
        ({"max_pixels": 0}, "max_pixels: expected a whole number, 1 or more; got '0'"),
        ({"classes": []}, "classes: expected a list of another length; got 0 values"),
    ],
)
def test_it_refuses_what_the_command_refuses(detector, settings, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Detector(detector.path, **({"device": "cpu"} | settings))


def test_it_takes_numpys_numbers(detector):
    settings = {"tile": np.int64(64), "overlap": np.float32(0.25), "test_sides": (np.int32(64), 96)}
    assert len(Detector(detector.path, "cpu", **settings)(np.zeros((70, 80, 3), np.uint8)).boxes.shape) == 2


def _png(side: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def test_its_repr_says_what_it_finds(detector):
    assert repr(detector) == f"Detector({str(detector.path)!r}, 'cpu', threshold=0.05, classes={detector.class_names})"


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "a.pt").write_text("no")

    with pytest.raises(UserError, match=r"a.pt"):
        Detector(tmp_path / "a.pt")


@pytest.mark.parametrize(("given", "at_once"), [(None, 2), (1, 1), (3, 3)])
def test_batches_are_as_large_as_in_training_or_as_given(tmp_path, given, at_once):
    detector, seen = Detector(random_checkpoint(tmp_path / "best.pt"), "cpu", batch_size=given), []
    look = detector.look
    detector.look = lambda *batch: seen.append(len(batch[0])) or look(*batch)
    detector([np.zeros((64, 64, 3), np.uint8)] * 3)
    assert (max(seen), sum(seen)) == (at_once, 3)

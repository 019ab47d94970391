import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.coco.results import Found
from retinanet.predict.outputs import Outputs
from retinanet.settings.predict import CROPS, PICTURES

HEIGHT, WIDTH = 40, 60


def written(folder, *drawn, save=(PICTURES, CROPS)):
    """The files below `folder` after images of the names were drawn, each with the boxes (left, top, width, height)."""
    image = torch.arange(3 * HEIGHT * WIDTH).reshape(3, HEIGHT, WIDTH).to(torch.uint8)
    with Outputs(folder, save, ["cat"], [1]) as outputs:
        for name, *boxes in drawn:
            count = len(boxes)
            found = Found(np.zeros(count, int), np.zeros(count, int), np.full(count, 0.5), np.array(boxes, float))
            outputs.draw(name, image, found)
    return image, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_a_crop_holds_the_pixels_of_its_box(tmp_path):
    image, names = written(tmp_path, ("one.png", [30, 10, 25, 8], [2.6, 3.7, 4, 5]), save=(CROPS,))
    assert names == ["crops/cat/one_1.png", "crops/cat/one_2.png"]
    for name, (rows, columns) in zip(names, ((slice(10, 18), slice(30, 55)), (slice(3, 9), slice(2, 7))), strict=True):
        wanted = image[:, rows, columns].permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), wanted)


@pytest.mark.parametrize(
    "box",
    [
        [10.2, 10.2, 0.1, 0.1],
        [WIDTH, HEIGHT, 1e-6, 1e-6],  # as rounding may put it
        [WIDTH - 0.01, 0, 0.01, 5],
        [0, HEIGHT - 0.01, 5, 0.01],
    ],
)
def test_a_crop_has_a_pixel_at_least(tmp_path, box):
    _, names = written(tmp_path, ("one.png", box), save=(CROPS,))
    assert min(Image.open(tmp_path / names[0]).size) == 1


def test_names_that_differ_only_in_case_get_a_number(tmp_path):
    """Or on macOS and Windows the second picture would be the first one's file."""
    _, names = written(tmp_path, ("a.png",), ("A.png",), ("a_2.png",), save=(PICTURES,))
    assert sorted(names) == ["pictures/A_2.png", "pictures/a.png", "pictures/a_2_2.png"]


@pytest.mark.parametrize("name", ["../../one.png", "/one.png", "../one.png"])
def test_pictures_of_files_elsewhere_stay_in_the_folder(tmp_path, name):
    _, names = written(tmp_path / "deep" / "out", (name, [0, 0, 9, 9]))
    assert names == ["crops/cat/one_1.png", "pictures/one.png"]
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    found = Found(np.zeros(1, int), np.zeros(1, int), np.full(1, 0.5), np.array([[0, 0, 9, 9]], float))
    with Outputs(tmp_path, (), ["cat"], [1]) as outputs:
        outputs.add(name, found)
        outputs.draw(name, torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), found)
    assert (tmp_path / "predictions.csv").read_text("utf-8").splitlines()[1].startswith(r"caf\udce9.png,,cat,0.5,")
    (row,) = json.loads((tmp_path / "predictions.json").read_text("utf-8"))
    assert row["file_name"] == name


def test_crops_of_videos_elsewhere_stay_in_their_class_folder(tmp_path):
    found = Found(np.zeros(1, int), np.zeros(1, int), np.full(1, 0.5), np.array([[0, 0, 9, 9]], float))
    with Outputs(tmp_path / "deep" / "out", (CROPS,), ["cat"], [1]) as outputs:
        outputs.crop("../../../clip.mp4/000001.png", torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), found)
    (written,) = tmp_path.rglob("*.png")
    assert written.relative_to(tmp_path).as_posix() == "deep/out/crops/cat/clip.mp4/000001_1.png"

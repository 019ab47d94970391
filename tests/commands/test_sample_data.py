import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.dataset import CocoDataset
from retinanet.runtime.errors import UserError
from retinanet.sample_data.cutouts import cutouts
from retinanet.sample_data.scenes import make_scene, write_sample_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample_data(folder, 3407, {"train": 24, "val": 3})
    return folder


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_writes_the_same_bytes(folder, tmp_path):
    write_sample_data(tmp_path / "again", 3407, {"train": 24, "val": 3})
    write_sample_data(tmp_path / "other", 1, {"train": 24, "val": 3})
    assert digests(tmp_path / "again") == digests(folder)
    assert set(digests(folder).values()).isdisjoint(digests(tmp_path / "other").values())


def test_it_is_a_sound_and_varied_set(folder):
    annotations = load_annotations(folder / "train.json")
    assert annotations.class_names == ["coin", "cat", "astronaut", "cup", "motorcycle"]
    dataset = CocoDataset(annotations, folder / "images" / "train", 128, 192)
    dataset.require_images()
    assert dataset.num_empty == 0
    assert set(annotations.labels.tolist()) == set(range(5))
    sides = annotations.boxes[:, 2:].max(axis=1)
    assert sides.min() < 50 < 120 < sides.max()
    counts = np.diff(annotations.first)
    assert counts.min() == 0
    assert counts.max() >= 6
    assert len({tuple(size) for size in annotations.sizes.tolist()}) > 1
    ends = annotations.boxes[:, :2] + annotations.boxes[:, 2:]
    sizes = annotations.sizes.repeat(counts, axis=0)
    assert (annotations.boxes >= 0).all()
    assert (ends <= sizes[:, ::-1]).all()


def test_boxes_are_those_of_what_is_visible():
    """On a black ground a lone white object's box is where bright pixels are."""
    draw = np.random.default_rng(0)
    white, black = Image.new("RGBA", (90, 60), (255, 255, 255, 255)), Image.new("L", (640, 640))
    checked = 0
    for _ in range(40):
        scene, boxes = make_scene(draw, [[white]], [black])
        if len(boxes) == 1:
            rows, columns = np.nonzero(np.asarray(scene.convert("L")) > 127)
            left, top, width, height = boxes[0][1]
            seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(seen) - (left, top, left + width, top + height)).max() <= 2
            checked += 1
    assert checked > 3


def test_existing_files_are_left_alone(folder, tmp_path):
    before = digests(folder)
    with pytest.raises(UserError, match=r"train\.json: exists already"):
        write_sample_data(folder, 1, {"train": 2, "new": 2})
    assert digests(folder) == before
    (tmp_path / "images" / "val").mkdir(parents=True)
    with pytest.raises(UserError, match="val: exists already"):
        write_sample_data(tmp_path, 1, {"train": 2, "val": 2})
    assert not (tmp_path / "train.json").exists()


def test_cutouts_have_an_outline():
    for name, pictures in cutouts().items():
        for picture in pictures:
            opacity = np.asarray(picture)[..., 3] / 255
            assert min(picture.size) > 30, name
            assert 0.3 < opacity.mean() < 0.95, name  # the object fills its picture, and its corners are free


def test_annotations_are_plain_coco(folder):
    content = json.loads((folder / "train.json").read_text())
    assert set(content) == {"images", "annotations", "categories"}
    assert set(content["annotations"][0]) == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}

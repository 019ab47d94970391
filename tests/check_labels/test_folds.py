"""The folds of a set: each image in one, groups and look-alikes together, each class in all; and their data folders."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.check_labels.folds import folds_of, write_fold_data
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import check_annotations, owners_of
from retinanet.data.dataset import CocoDataset
from retinanet.data.similar import joined_looks, look_of
from retinanet.runtime.errors import UserError


def a_set(path, num_images, seed=0, classes=3):
    draw = np.random.default_rng(seed)
    images = [
        {"id": 10 + i, "file_name": f"clip{i // 4}_{i}.png", "width": 50, "height": 40} for i in range(num_images)
    ]
    annotations = [
        {
            "id": number,
            "image_id": 10 + int(draw.integers(num_images)),
            "category_id": 1 + int(draw.integers(classes)),
            "bbox": [1, 2, 10, 10],
        }
        for number in range(num_images * 2)
    ]
    categories = [{"id": 1 + label, "name": name} for label, name in enumerate("abc"[:classes])]
    return check_annotations(path, {"images": images, "annotations": annotations, "categories": categories})[0]


def different_looks(count):
    draw = np.random.default_rng(0)
    return joined_looks([look_of(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(20, 40), num_folds=st.integers(2, 4))
def test_each_image_is_in_one_fold_and_what_belongs_together_stays_together(tmp_path_factory, seed, count, num_folds):
    annotations = a_set(tmp_path_factory.getbasetemp() / "set.json", count, seed)
    looks = different_looks(count)
    looks.hashes[5], looks.small[5] = looks.hashes[0], looks.small[0]
    folds = folds_of(annotations, looks, num_folds, r"^(clip\d+)", seed)
    assert len(folds) == count
    assert set(folds.tolist()) == set(range(num_folds))
    clips = np.arange(count) // 4
    for clip in set(clips.tolist()):
        assert len(set(folds[clips == clip].tolist())) == 1
    assert folds[0] == folds[5]
    assert (folds == folds_of(annotations, looks, num_folds, r"^(clip\d+)", seed)).all()


def test_each_fold_gets_its_share_of_every_class(tmp_path):
    annotations = a_set(tmp_path / "set.json", 60)
    folds = folds_of(annotations, different_looks(60), 3, None, 0)
    assert Counter(folds.tolist()) == {0: 20, 1: 20, 2: 20}
    for label in range(3):
        counts = np.bincount(folds[owners_of(annotations)[annotations.labels == label]], minlength=3)
        assert counts.max() - counts.min() <= 4


@pytest.mark.parametrize(
    ("count", "num_folds", "group_by", "message"),
    [
        (1, 2, None, "--folds 2 needs as many groups of images, but the set of 1 image has only 1"),
        (9, 4, r"^clip\d+", "--folds 4 needs as many groups of images, but the set of 9 images has only 3"),
        (9, 4, r"^clip\d+", "Lower --folds to 3"),
        (9, 2, r"(", "is not a regular expression"),
        (9, 2, r"^video", "does not match clip0_0.png"),
    ],
)
def test_too_few_groups_are_refused(tmp_path, count, num_folds, group_by, message):
    annotations = a_set(tmp_path / "set.json", count)
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        folds_of(annotations, different_looks(count), num_folds, group_by, 0)


@pytest.fixture
def dataset(coco_path):
    return CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 64, 96)


def test_a_fold_s_folder_divides_the_set(coco_path, dataset, tmp_path):
    content = json.loads((coco_path / "train.json").read_text())
    is_held_out = np.arange(8) % 3 == 0
    write_fold_data(tmp_path / "fold", content, dataset, is_held_out)
    parts = {name: json.loads((tmp_path / "fold" / f"{name}.json").read_text()) for name in ("train", "val")}
    assert [image["id"] for image in parts["val"]["images"]] == [1, 4, 7]
    for key in ("images", "annotations"):
        entries = parts["train"][key] + parts["val"][key]
        assert sorted(entries, key=lambda entry: entry["id"]) == content[key]
    for part in parts.values():
        assert part["categories"] == content["categories"]
        assert {each["image_id"] for each in part["annotations"]} <= {image["id"] for image in part["images"]}
    assert all((tmp_path / "fold" / "images" / "val" / image["file_name"]).is_file() for image in content["images"])


def test_a_fold_s_folder_is_kept_and_another_set_s_is_refused(coco_path, dataset, tmp_path):
    content = json.loads((coco_path / "train.json").read_text())
    is_held_out = np.arange(8) % 2 == 0
    write_fold_data(tmp_path / "fold", content, dataset, is_held_out)
    before = (tmp_path / "fold" / "train.json").stat().st_mtime_ns
    (coco_path / "images").rename(coco_path / "pictures")  # the images were moved
    dataset.image_folder = coco_path / "pictures" / "train"
    write_fold_data(tmp_path / "fold", content, dataset, is_held_out)
    assert (tmp_path / "fold" / "train.json").stat().st_mtime_ns == before
    assert (tmp_path / "fold" / "images" / "train" / "1.png").is_file()
    with pytest.raises(UserError, match="was written for other annotations"):
        write_fold_data(tmp_path / "fold", content, dataset, ~is_held_out)

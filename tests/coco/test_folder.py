import pytest

from retinanet.coco.folder import find_annotation_file, find_image_folder, other_sets
from retinanet.runtime.errors import UserError


def test_both_layouts_are_found(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    cocos = tmp_path / "annotations" / "instances_val2017.json"
    cocos.touch()
    assert find_annotation_file(tmp_path, "val2017") == cocos
    assert find_image_folder(tmp_path, "val2017") == tmp_path / "val2017"
    (tmp_path / "val2017.json").touch()
    (tmp_path / "images" / "val2017").mkdir(parents=True)
    assert find_annotation_file(tmp_path, "val2017") == tmp_path / "val2017.json"
    assert find_image_folder(tmp_path, "val2017") == tmp_path / "images" / "val2017"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none: no such data folder"):
        find_annotation_file(tmp_path / "none", "val")
    with pytest.raises(UserError, match=r"val\.json: no such annotation file, and no .*instances_val\.json"):
        find_annotation_file(tmp_path, "val")
    with pytest.raises(UserError, match=r"images/val: no such image folder"):
        find_image_folder(tmp_path, "val")


def test_sets_of_key_points_and_cvats_folders_are_found(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    key_points = tmp_path / "annotations" / "person_keypoints_val2017.json"
    key_points.touch()
    assert find_annotation_file(tmp_path, "val2017") == key_points
    assert list(other_sets(tmp_path / "annotations" / "instances_val.json")) == ["val2017"]
    (tmp_path / "annotations" / "instances_default.json").touch()
    (tmp_path / "images" / "a.PNG").touch()
    assert find_annotation_file(tmp_path, "default").name == "instances_default.json"
    assert find_image_folder(tmp_path, "default") == tmp_path / "images"

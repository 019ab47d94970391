import pytest

from retinanet.coco.folder import find_annotation_file, find_image_folder
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

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


def test_a_missing_val_names_the_command_that_makes_it_of_train(tmp_path):
    (tmp_path / "train.json").touch()
    command = f"python -m retinanet.convert {tmp_path} --split 0.8 0.2 --output_path {tmp_path}2"
    with pytest.raises(UserError, match=rf"To make val of a part of train: {command}$"):
        find_annotation_file(tmp_path, "val")
    (tmp_path / "test.json").touch()
    with pytest.raises(UserError, match=r"The folder has the sets test, train\. Put the file there"):
        find_annotation_file(tmp_path, "val")


@pytest.mark.parametrize("name", ["result.json", "annotations/instances_default.json", "a/b/_annotations.coco.json"])
def test_coco_files_that_name_no_set_are_for_convert(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    command = f"To convert them: python -m retinanet.convert {tmp_path} "
    words = f"holds no train.json, but annotations in the COCO format, but in another layout. {command}"
    with pytest.raises(UserError, match=words):
        find_annotation_file(tmp_path, "train")


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "set.zip").touch()
    with pytest.raises(UserError, match=r"set\.zip: is an archive\. Unpack it"):
        find_annotation_file(tmp_path / "set.zip", "train")

"""Photographs with an EXIF orientation are upright everywhere, and their headers are read once."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from support.photos import BOX, GREY, RED, colour_inside, write_photo, write_photos

from retinanet.coco.annotation_cache import cache_folder
from retinanet.coco.results import found_of, load_results, rows_of, write_results
from retinanet.data import headers as headers_file
from retinanet.data.dataset import load_set, load_set_without_images
from retinanet.runtime.errors import UserError

ALL = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def opened(monkeypatch):
    """The images whose headers are read."""
    names, read_header = [], headers_file.read_header
    monkeypatch.setattr(headers_file, "read_header", lambda path: names.append(path.name) or read_header(path))
    return names


def loaded(folder, name="train", **more):
    return load_set(folder, name, min_side=64, max_side=96, max_pixels=10**6, **more)[1]


def colours(dataset):
    boxes = dataset.annotations.boxes.tolist()
    return [colour_inside(dataset.original(index), box) for index, box in enumerate(boxes)]


@pytest.mark.parametrize("of_stored", [False, True])
def test_boxes_and_pictures_are_upright(tmp_path, of_stored):
    """Sizes prove that boxes are of the stored pixels where the orientation swaps height and width."""
    orientations = [1, 5, 6, 7, 8] if of_stored else ALL
    write_photos(tmp_path, "train", orientations, of_stored=of_stored)
    dataset = loaded(tmp_path)
    assert dataset.annotations.boxes.tolist() == [BOX] * len(orientations)
    assert dataset.annotations.sizes.tolist() == [[48, 64]] * len(orientations)
    assert colours(dataset) == [RED] * len(orientations)


def test_where_the_size_does_not_tell_upright_is_assumed_and_said(tmp_path):
    write_photos(tmp_path, "train", [1, 3, 2, 6])
    (note,) = loaded(tmp_path).frame_notes()
    assert "train.json: 2 images with an EXIF orientation, where the size doesn't tell" in note
    assert "--exif raw" in note
    write_photos(tmp_path, "square", [5, 6, 1], height=64)
    assert "2 images with an EXIF orientation" in loaded(tmp_path, "square").frame_notes()[0]


def test_raw_turns_neither_pixels_nor_boxes_where_the_size_does_not_tell(tmp_path):
    write_photos(tmp_path, "train", ALL, of_stored=True)
    dataset = loaded(tmp_path, exif="raw")
    written = [entry["bbox"] for entry in json.loads((tmp_path / "train.json").read_text())["annotations"]]
    assert dataset.annotations.boxes.tolist() == written
    assert colours(dataset) == [RED] * len(ALL)
    assert dataset.frame_notes() == []
    write_photos(tmp_path, "upright", ALL)
    assert colours(loaded(tmp_path, "upright", exif="raw"))[4:] == [RED] * 4  # today's reading: turned to the size
    assert GREY != RED
    assert colours(loaded(tmp_path, "upright", exif="raw"))[2] != RED


def test_result_files_are_in_the_frame_of_the_annotation_file(tmp_path):
    path = write_photos(tmp_path, "train", [6, 1, 8, 5, 7], of_stored=True)
    written = [entry["bbox"] for entry in json.loads(path.read_text())["annotations"]]
    dataset = loaded(tmp_path)
    rows = [{"image_id": number, "category_id": 1, "bbox": box, "score": 0.5} for number, box in enumerate(written, 1)]
    found = found_of(rows, dataset.annotations)
    assert found.boxes.tolist() == [BOX] * 5
    assert rows_of(found, dataset.annotations) == rows
    write_results(rows, tmp_path / "results.json")
    for folder in (tmp_path / "images" / "train").iterdir():
        folder.unlink()
    bare = load_set_without_images(tmp_path, "train", 10**6, for_pictures=True).annotations
    assert load_results(tmp_path / "results.json", bare).boxes.tolist() == written == bare.boxes.tolist()


def test_each_header_is_read_once(tmp_path, opened):
    write_photos(tmp_path, "train", [1, 6, 3])
    first = loaded(tmp_path)
    assert sorted(opened) == ["1.png", "2.png", "3.png"]
    again = loaded(tmp_path)
    assert len(opened) == 3
    assert (again.headers.sizes == first.headers.sizes).all()
    assert again.headers.orientations.tolist() == [1, 6, 3]
    (tmp_path / "images" / "train").rename(tmp_path / "images" / "other")
    (tmp_path / "images" / "train").symlink_to("other")  # another folder, by its real path
    loaded(tmp_path)
    assert len(opened) == 6


def test_an_unreadable_header_is_read_again(tmp_path, opened):
    path = tmp_path / "images" / "train" / "2.png"
    write_photos(tmp_path, "train", [1, 6, 3])
    path.write_bytes(b"no image")
    dataset = loaded(tmp_path, require_images=False)
    assert dataset.headers.at(1) is None
    with pytest.raises(UserError, match=r"2\.png: can't be read as an image"):
        loaded(tmp_path)
    write_photo(path, 6)
    opened.clear()
    assert colours(loaded(tmp_path)) == [RED] * 3
    assert opened == ["2.png"]


def test_a_picture_of_another_size_that_was_replaced_is_read_again(tmp_path, opened):
    path = tmp_path / "images" / "train" / "2.png"
    write_photos(tmp_path, "train", [1, 6, 3])
    write_photo(path, 6, 40)
    with pytest.raises(UserError, match=r"2\.png: the image is"):
        loaded(tmp_path)
    write_photo(path, 6)
    opened.clear()
    assert colours(loaded(tmp_path)) == [RED] * 3
    assert opened == ["2.png"]


@pytest.mark.parametrize(("orientation", "height"), [(3, 48), (6, 48), (1, 40)])
@pytest.mark.parametrize("exif", ["upright", "raw"])
def test_changed_pictures_are_named_and_their_headers_read_again(tmp_path, orientation, height, exif):
    write_photos(tmp_path, "train", [1, 1])
    before = loaded(tmp_path, exif=exif)
    (entry,) = cache_folder().glob("*.*.npz")
    write_photo(tmp_path / "images" / "train" / "2.png", orientation, height)
    dataset = loaded(tmp_path, exif=exif)
    assert isinstance(dataset[0].image.shape[1], int)
    message = dataset[1].message
    assert "2.png: is " in message
    assert message.endswith("the pictures have changed; start again.")
    assert not entry.exists()
    assert before.headers.orientations.tolist() == [1, 1]
    if height == 48:
        again = loaded(tmp_path, exif=exif)
        assert np.array_equal(again.headers.orientations, [1, orientation])


def test_a_changed_picture_is_named_though_its_header_can_not_be_removed(tmp_path, monkeypatch):
    write_photos(tmp_path, "train", [1, 1])
    loaded(tmp_path)
    (entry,) = cache_folder().glob("*.*.npz")
    write_photo(tmp_path / "images" / "train" / "2.png", 6)

    def refused(path, missing_ok):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    message = loaded(tmp_path)[1].message
    assert "2.png: is " in message
    assert f"start again. First remove {entry} (Read-only file system), or point XDG_CACHE_HOME" in message


def test_a_set_without_orientations_is_as_its_file_says(coco_path):
    dataset = loaded(coco_path)
    assert dataset.annotations.turns is None
    assert dataset.frame_notes() == []

import base64
import io

import numpy as np
import pytest
from PIL import Image
from support.data_folder import change_json, write_set

from retinanet.coco.results import found_of
from retinanet.data.dataset import load_set_without_images
from retinanet.evaluation.analysis import analyse
from retinanet.reports.embedded_images import MEGABYTE, pictures_of, telling_order
from retinanet.runtime.errors import UserError
from retinanet.settings.evaluate import evaluate_settings
from retinanet.settings.shared import EMBED, LINK, MAX_PIXELS, RAW


def small_set(folder, exif="upright"):
    return load_set_without_images(folder, "val", MAX_PIXELS, exif=exif, for_pictures=True)


def photographs(folder, count=8, width=1000, height=700):
    """Writes a set of noisy images that JPEG can't make small, and returns it."""
    write_set(folder, "val", count)
    draw = np.random.default_rng(0)
    for number in range(1, count + 1):
        noise = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / "val" / f"{number}.png")
    size = {"width": width, "height": height}
    change_json(folder / "val.json", lambda content: content.update(images=[i | size for i in content["images"]]))
    return small_set(folder)


def opened(source):
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))


def rows(*wanted):
    """Detections (image id, category id, box, score)."""
    return [dict(zip(("image_id", "category_id", "bbox", "score"), row, strict=True)) for row in wanted]


def analysed(dataset, *wanted):
    return analyse(dataset.annotations, found_of(rows(*wanted), dataset.annotations), num_draws=0)


def test_images_that_tell_most_come_first(tmp_path):
    write_set(tmp_path, "val", 6)
    dataset = small_set(tmp_path)
    annotations = dataset.annotations
    ids = [annotations.category_ids[label] for label in annotations.labels]
    boxes = annotations.boxes.tolist()
    hits = [(image + 1, ids[image], boxes[image], 0.9) for image in (0, 1, 4)]
    false = [(5, ids[0], [0, 0, 3, 3], 0.95), (5, ids[1], [0, 5, 3, 3], 0.95)]
    left, top, width, height = boxes[3]
    misplaced = (4, ids[3], [left, top, width * 0.4, height], 0.95)
    a = analysed(dataset, *hits, *false, misplaced)
    # Image 4 (id 5) has the most false positives, images 2 and 3 a miss each, image 3 a badly placed box.
    assert telling_order([a], annotations).tolist() == [4, 2, 3, 0, 1, 5]
    # A second run misses the object of image 1, which the first finds.
    b = analysed(dataset, hits[0], hits[2], (3, ids[2], boxes[2], 0.9))
    assert telling_order([a, b], annotations).tolist() == [4, 2, 3, 1, 0, 5]


def test_each_picture_is_embedded_once_with_its_shape(tmp_path):
    dataset = photographs(tmp_path, count=3)
    pictures = pictures_of(dataset, np.arange(3), EMBED, 15, tmp_path)
    assert [opened(source).size for source in pictures.sources] == [(640, 448)] * 3
    assert pictures.notes == [None] * 3
    assert pictures == pictures_of(dataset, np.arange(3), EMBED, 15, tmp_path)


def test_small_pictures_are_not_enlarged(tmp_path):
    write_set(tmp_path, "val", 3)
    pictures = pictures_of(small_set(tmp_path), np.arange(3), EMBED, 15, tmp_path)
    assert [opened(source).size for source in pictures.sources] == [(64, 64), (96, 64), (64, 96)]


def test_the_limit_holds_and_the_first_are_larger(tmp_path):
    dataset = photographs(tmp_path)
    order = np.array([5, 2, 7, 0, 1, 3, 4, 6])
    all_of_them = pictures_of(dataset, order, EMBED, 15, tmp_path)
    size = len(base64.b64decode(all_of_them.sources[5].partition(",")[2]))
    limit = 4.2 * size / MEGABYTE
    some = pictures_of(dataset, order, EMBED, limit, tmp_path)
    sizes = [opened(some.sources[image]).width if some.sources[image] else 0 for image in order]
    assert sizes == sorted(sizes, reverse=True)
    assert {640, 320} <= set(sizes)
    used = sum(len(base64.b64decode(source.partition(",")[2])) for source in some.sources if source)
    assert limit * MEGABYTE * 0.8 < used <= limit * MEGABYTE
    assert all((source is None) == (note is not None) for source, note in zip(*some, strict=True))
    nothing = pictures_of(dataset, order, EMBED, 0, tmp_path)
    assert nothing.sources == [None] * 8
    assert "--report_mb 0" in nothing.notes[0]


def test_missing_and_damaged_files_are_named_and_the_others_are_there(tmp_path):
    write_set(tmp_path, "val", 4)
    images = tmp_path / "images" / "val"
    (images / "2.png").unlink()
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(whole[: len(whole) // 2])
    pictures = pictures_of(small_set(tmp_path), np.arange(4), EMBED, 15, tmp_path)
    assert [source is None for source in pictures.sources] == [True, True, False, False]
    assert "1.png" in pictures.notes[0]
    assert "no such file" in pictures.notes[1]


@pytest.mark.parametrize("name", ["1 #%?:é.png", "below/1.png"])
def test_links_are_relative_and_quoted(tmp_path, name):
    write_set(tmp_path, "val", 2)
    images = tmp_path / "images" / "val"
    (images / name).parent.mkdir(exist_ok=True)
    (images / "1.png").rename(images / name)
    change_json(tmp_path / "val.json", lambda content: content["images"][0].update(file_name=name))
    pictures = pictures_of(small_set(tmp_path), np.arange(2), LINK, 15, tmp_path / "out" / "report")
    quoted = "1%20%23%25%3F%3A%C3%A9.png" if "below" not in name else name
    assert pictures.sources == [f"../../images/val/{quoted}", "../../images/val/2.png"]


def lying(folder):
    """Gives the first image, 64 x 64, an EXIF orientation that turns it, which its size doesn't tell."""
    path = folder / "images" / "val" / "1.png"
    picture = Image.open(path)
    exif = Image.Exif()
    exif[274] = 6
    picture.save(path, exif=exif)
    return np.asarray(picture.convert("RGB"))


def test_embedded_pictures_have_the_frame_of_the_boxes_and_links_only_if_browsers_show_it(tmp_path):
    write_set(tmp_path, "val", 2)
    stored = lying(tmp_path).astype(int)
    for exif, expected, is_linked in (("upright", np.rot90(stored, -1), True), (RAW, stored, False)):
        dataset = small_set(tmp_path, exif)
        source = pictures_of(dataset, np.arange(2), EMBED, 15, tmp_path).sources[0]
        assert np.abs(np.asarray(opened(source)).astype(int) - expected).mean() < 20
        links = pictures_of(dataset, np.arange(2), LINK, 15, tmp_path)
        assert (links.sources[0] is not None) == is_linked
        assert (links.notes[0] is None) == is_linked


def test_flags_about_pictures_need_a_report_of_that_kind(tmp_path):
    for words, reason in (
        (["--report_mb", "3"], "Add --report"),
        (["--report_images", "link"], "Add --report"),
        (["--report", "r", "--report_images", "link", "--report_mb", "3"], "Remove it"),
    ):
        with pytest.raises(UserError, match=reason):
            evaluate_settings(words)
    assert evaluate_settings(["--report", "r", "--report_mb", "0.5"]).pictures.report_mb == 0.5

import json

import numpy as np
import pytest
from support.result_rows import SET

from retinanet.coco.annotations import read_annotations
from retinanet.coco.results import Found, found_of, joined, rows_of, write_results

# Images 7 and 2 in the order of their file; category ids 3 and 9.
FOUND = Found(
    images=np.array([1, 0, 1]),
    labels=np.array([1, 0, 0]),
    scores=np.array([0.5, np.float64(np.float32(0.9)), 0.75]),
    boxes=np.array([[1.0, 2, 30, 40.25], [0, 0, 1 / 3, 1e-3], [5, 6, 7, 8]]),
)
NOTHING = Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
# As result files have always been written, byte for byte.
TEXT = (
    '[{"image_id": 2, "category_id": 9, "bbox": [1.0, 2.0, 30.0, 40.25], "score": 0.5}, '
    '{"image_id": 7, "category_id": 3, "bbox": [0.0, 0.0, 0.3333333333333333, 0.001], "score": 0.8999999761581421}, '
    '{"image_id": 2, "category_id": 3, "bbox": [5.0, 6.0, 7.0, 8.0], "score": 0.75}]'
)


@pytest.fixture
def annotations(tmp_path):
    images = [{**SET["images"][0], "id": image_id} for image_id in (7, 2)]
    categories = [{"id": category_id, "name": str(category_id)} for category_id in (9, 3)]
    (tmp_path / "set.json").write_text(json.dumps({"images": images, "categories": categories}))
    return read_annotations(tmp_path / "set.json")


def assert_equal(one, other):
    for array, wanted in zip(one, other, strict=True):
        assert array.dtype == wanted.dtype
        assert np.array_equal(array, wanted)


def test_the_file_is_written_as_ever(annotations, tmp_path):
    write_results(rows_of(FOUND, annotations), tmp_path / "rows.json")
    assert (tmp_path / "rows.json").read_text() == TEXT
    assert_equal(found_of(json.loads(TEXT), annotations), FOUND)


def test_nothing_found(annotations, tmp_path):
    assert rows_of(NOTHING, annotations) == []
    assert_equal(found_of([], annotations), NOTHING)
    assert_equal(joined([]), NOTHING)


def test_parts_are_joined_in_their_order():
    parts = [FOUND.at(np.array([0])), NOTHING, FOUND.at(np.array([False, True, True]))]
    assert_equal(joined(parts), FOUND)

import json
import zipfile

import pytest
from support.result_rows import row

from retinanet.coco.results import read_results, results_text, write_results
from retinanet.runtime.errors import UserError
from retinanet.submission.rows import sameness


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.json"
    write_results([row()], path)
    assert json.loads(path.read_text()) == [row()]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.json"]
    with pytest.raises(UserError, match=r"none/rows\.json: can't be written"):
        write_results([], tmp_path / "none" / "rows.json")


@pytest.mark.parametrize("name", ["rows.zip", "rows.ZIP"])
def test_read_out_of_a_zip_as_without(tmp_path, name):
    write_results([row()], tmp_path / "rows.json")
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.write(tmp_path / "rows.json", "mine.json")
    assert read_results(tmp_path / "rows.json") == ([row()], None)
    assert read_results(tmp_path / name) == ([row()], "mine.json")


@pytest.mark.parametrize("text", [b"[{", b"", b"\xff\xfe", b"[" * 100_000], ids=["cut", "empty", "not UTF-8", "nested"])
def test_no_json_is_refused_from_a_zip_too(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.json", text)
    with pytest.raises(UserError, match=r"rows\.zip: not valid JSON"):
        read_results(tmp_path / "rows.zip")


def test_the_four_keys_are_handed_in(tmp_path):
    # COCO's reader takes rows with a caption for captions, and there is no NaN in JSON.
    assert json.loads(results_text([{**row(), "caption": "a cat", "area": float("nan")}])) == [row()]


def test_true_is_not_1_among_duplicates():
    assert sameness(row(True)) != sameness(row(1))
    assert sameness(row([1])) != sameness(row(1))

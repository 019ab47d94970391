import io
import json
import os
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.result_rows import row

from retinanet.coco import results
from retinanet.coco.results import (
    read_record,
    read_results,
    read_zip,
    record_path,
    results_text,
    set_aside,
    write_results,
    write_zip,
)
from retinanet.runtime.errors import UserError

TEXT = b'[{"image_id": 1}]'


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.json"
    write_results([row()], path)
    assert json.loads(path.read_text()) == [row()]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.json"]
    with pytest.raises(UserError, match=r"none/rows\.json: can't be written"):
        write_results([], tmp_path / "none" / "rows.json")


RECORD = {"checkpoint": "best.pt", "epoch": 3, "settings": {"depth": 18}, "test_settings": {}}


def test_a_record_lies_beside_and_belongs_to_its_content(tmp_path):
    path = tmp_path / "rows.json"
    write_results([row()], path, RECORD)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.json", "rows.run.json"]
    record, why = read_record(path)
    assert (record.items() >= RECORD.items(), why) == (True, "")
    write_zip(results_text([row()]), tmp_path / "rows.zip")
    assert read_record(tmp_path / "rows.zip")[0] == record
    path.write_text(path.read_text() + " ")
    assert read_record(path) == ({}, f"{tmp_path}/rows.run.json belongs to another version of rows.json")


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {}}', '{"settings": 1, "test_settings": {}}', "[" * 10**5])
def test_other_content_is_no_record(tmp_path, content):
    write_results([row()], tmp_path / "rows.json")
    assert read_record(tmp_path / "rows.json") == ({}, f"there is no {tmp_path}/rows.run.json")
    (tmp_path / "rows.run.json").write_text(content)
    record, why = read_record(tmp_path / "rows.json")
    assert (record, "rows.run.json" in why) == ({}, True)


def test_the_record_goes_aside_with_its_file(tmp_path):
    path = tmp_path / "rows.json"
    write_results([row()], path, RECORD)
    record = read_record(path)
    assert set_aside(path, [row()]) is None
    assert set_aside(path, []) == tmp_path / "rows.before_1.json"
    assert not list(tmp_path.glob("rows.json")) + list(tmp_path.glob("rows.run.json"))
    assert read_record(tmp_path / "rows.before_1.json") == record
    write_results([], path)
    assert set_aside(path, [row()]) == tmp_path / "rows.before_2.json"


@pytest.mark.parametrize("name", ["rows.zip", "rows.ZIP"])
def test_read_out_of_a_zip_as_without(tmp_path, name):
    write_results([row()], tmp_path / "rows.json")
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.write(tmp_path / "rows.json", "mine.json")
    assert read_results(tmp_path / "rows.json") == ([row()], None)
    assert read_results(tmp_path / name) == ([row()], "mine.json")


@pytest.mark.parametrize("text", [b"[{", b"", b"[" * 100_000], ids=["cut", "empty", "nested"])
def test_no_json_is_refused_from_a_zip_too(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.json", text)
    with pytest.raises(UserError, match=r"rows\.zip: not valid JSON"):
        read_results(tmp_path / "rows.zip")


def test_the_four_keys_are_handed_in(tmp_path):
    # COCO's reader takes rows with a caption for captions, and there is no NaN in JSON.
    assert json.loads(results_text([{**row(), "caption": "a cat", "area": float("nan")}])) == [row()]


def packed(*members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def claiming(num_bytes, content, method):
    """A zip whose member says in both of its places that it has `num_bytes`."""
    right, wrong = (number.to_bytes(4, "little") for number in (len(content), num_bytes))
    bytes_of = packed(("rows.json", content), method=method)
    for mark, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = bytes_of.index(mark) + place
        assert bytes_of[start : start + 4] == right
        bytes_of = bytes_of[:start] + wrong + bytes_of[start + 4 :]
    return bytes_of


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_reads_what_others_pack(tmp_path, method):
    (tmp_path / "a.zip").write_bytes(packed(("b.json", TEXT), method=method))
    assert read_zip(tmp_path / "a.zip") == ("b.json", TEXT)


def test_equal_rows_make_equal_bytes(tmp_path, monkeypatch):
    path = tmp_path / "detections_val2017_mine.v2_results.zip"
    write_zip("[1]", path)
    first = path.read_bytes()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_zip("[1]", path)
    assert path.read_bytes() == first
    assert read_zip(path) == ("detections_val2017_mine.v2_results.json", b"[1]")
    assert os.listdir(tmp_path) == [path.name]


def test_a_zip_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.zip").write_bytes(b"before")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UserError, match=r"a\.zip: can't be written \(No space left"):
        write_zip("[1]", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.zip"]


BAD = {
    "no zip": (TEXT, "File is not a zip file"),
    "no byte": (b"", "File is not a zip file"),
    "cut": (packed(("a.json", TEXT))[:-30], "File is not a zip file"),
    "no member": (packed(), "holds nothing"),
    "two": (packed(("a.json", TEXT), ("b.json", TEXT)), "holds a.json, b.json"),
    "four": (packed(*((f"{i}.json", TEXT) for i in range(4))), r"holds 0.json, 1.json, 2.json \.\.\."),
    "as a Mac packs": (packed(("a.json", TEXT), ("__MACOSX/._a.json", TEXT)), "holds a.json, __MACOSX"),
    "no .json": (packed(("a.txt", TEXT)), "holds a.txt"),
    "a folder": (packed(("a.json/", b"")), "holds a.json/"),
    "changed": (packed(("a.json", TEXT), method=zipfile.ZIP_STORED).replace(b"image", b"imagf"), "Bad CRC-32"),
    "longer than it claims": (claiming(9, b"0" * 100_000, zipfile.ZIP_DEFLATED), "Bad CRC-32"),
    "shorter than it claims": (claiming(99_999, b"0" * 999, zipfile.ZIP_DEFLATED), "claims 99999 bytes but has 999"),
    "stored, longer": (claiming(9, b"0" * 999, zipfile.ZIP_STORED), "Bad CRC-32"),
    "stored, shorter": (claiming(99_999, b"0" * 999, zipfile.ZIP_STORED), r"EOFError|claims 99999|Overlapped"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(tmp_path, name):
    content, words = BAD[name]
    path = tmp_path / "rows.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"rows\.zip: not a zip with a result file in it, or damaged \(.*{words}"):
        read_zip(path)


def test_missing_or_a_folder(tmp_path):
    for path in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            read_zip(path)


@pytest.mark.parametrize(("num_bytes", "refused"), [(1_000_000, True), (110_000, False)])
def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch, num_bytes, refused):
    monkeypatch.setattr(results, "SMALL", 100_000)
    path = tmp_path / "rows.zip"
    path.write_bytes(packed(("rows.json", b" " * num_bytes)))
    if not refused:
        assert len(read_zip(path)[1]) == num_bytes
        return
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(UserError, match="claims 1000000 bytes in a zip of"):
        read_zip(path)


def test_no_more_is_unpacked_than_is_claimed(tmp_path):
    path = tmp_path / "rows.zip"
    path.write_bytes(claiming(9, b"0" * 20_000_000, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_zip(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_no_more_than_two_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_GROWTH", 10**9)
    path = tmp_path / "rows.zip"
    path.write_bytes(claiming(2**31 + 1, b"[]", zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="claims 2147483649 bytes in a zip of"):
        read_zip(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_refused_or_do_not_matter(tmp_path, data):
    content = bytearray(packed(("rows.json", TEXT * 5)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "rows.zip"
    path.write_bytes(content)
    try:
        _, text = read_zip(path)
    except UserError as refused:
        text = str(refused).encode()
    assert text == TEXT * 5 or text.startswith(f"{path}: ".encode())


def test_names_without_json_have_records_of_their_own():
    names = ("val.json", "VAL.JSON", "val.zip", "val_t0.3", "val_t0.4", "val")
    records = ("val.run.json", "VAL.run.json", "val.run.json", "val_t0.3.run.json", "val_t0.4.run.json", "val.run.json")
    assert [record_path(Path(name)) for name in names] == [Path(name) for name in records]

import hashlib
import json
import multiprocessing
import os
import stat
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.data_folder import change_json

from retinanet.coco import annotation_cache
from retinanet.coco.annotation_cache import cache_folder, load_annotations
from retinanet.coco.annotations import read_annotations
from retinanet.runtime.errors import UserError

DAY = 24 * 3600


@pytest.fixture
def path(coco_path):
    return coco_path / "train.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the caches, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user" / "cache"))
    annotation_cache._say_once.cache_clear()
    return tmp_path / "user" / "cache" / "retinanet"


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed."""
    calls = []
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda path: calls.append(path) or read_annotations(path))
    return calls


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_equal(annotations, expected):
    expected = expected._replace(fingerprint=digest_of(annotations.path))
    for name, got, value in zip(annotations._fields, annotations, expected, strict=True):
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype
            assert np.array_equal(got, value), name
        else:
            assert got == value


def test_parsed_once_and_equal(path, folder, parsed):
    beside = sorted(path.parent.iterdir())
    for _ in range(3):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 1
    assert [file.name for file in folder.iterdir()] == [f"{digest_of(path)}.npz"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.parent.iterdir()) == beside


def test_equal_files_share_a_cache(path, folder, parsed):
    other = path.with_name("other.json")
    other.write_bytes(path.read_bytes())
    load_annotations(path)
    assert load_annotations(other).path == other
    assert (len(parsed), len(list(folder.iterdir()))) == (1, 1)


def test_names_of_all_kinds_survive(path, parsed):
    names = ["cat\0", "dög", "  ", "猫\n"]

    def rename(content):
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        content["images"][0]["file_name"] = "sub/ä b.png"
        content["images"][1]["file_name"] = "猫😀.png"

    change_json(path, rename)
    for _ in range(2):
        annotations = load_annotations(path)
        assert annotations.class_names == names
        assert [annotations.file_name(row) for row in (0, 1, 2)] == ["sub/ä b.png", "猫😀.png", "3.png"]
    assert len(parsed) == 1


def test_other_content_of_equal_size_and_time_is_seen(path, parsed):
    before = path.stat()
    load_annotations(path)
    text = path.read_text()
    path.write_text(text.replace('"image_id": 1,', '"image_id": 2,', 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 2


def test_a_mistake_is_found_after_a_good_start(path):
    load_annotations(path)
    change_json(path, lambda content: content["annotations"][0].update(image_id=99))
    with pytest.raises(UserError, match="image_id 99"):
        load_annotations(path)


def test_a_cache_of_another_version_is_rebuilt(path, parsed, monkeypatch):
    load_annotations(path)
    monkeypatch.setattr(annotation_cache, "FORMAT", annotation_cache.FORMAT + 1)
    load_annotations(path)
    load_annotations(path)
    assert len(parsed) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_torn_cache_is_rebuilt(path, folder, data):
    expected = load_annotations(path)
    (entry,) = folder.iterdir()
    content = bytearray(entry.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "other"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = data.draw(st.binary(max_size=200))
    entry.write_bytes(content)
    assert_equal(load_annotations(path), expected)


def test_a_cache_with_code_in_it_runs_none(path, folder, tmp_path):
    class Mischief:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "mischief"),))

    expected = load_annotations(path)
    (entry,) = folder.iterdir()
    with zipfile.ZipFile(entry) as archive:
        names = archive.namelist()
    np.savez(entry, **{name.removesuffix(".npy"): np.array([Mischief()], object) for name in names})
    assert_equal(load_annotations(path), expected)
    assert not (tmp_path / "mischief").exists()


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "retinanet"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "retinanet"


def test_without_a_home_one_line_reports_it(path, parsed, capsys, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    for _ in range(2):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("No annotation cache, so each start parses")
    assert "no HOME" in line


def test_a_folder_that_cannot_be_written_is_no_error(path, folder, parsed, capsys):
    folder.parent.parent.write_text("a file where a folder is needed")
    for _ in range(2):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{folder} can't be written" in line


def test_caches_unused_for_90_days_are_removed(path, folder):
    load_annotations(path)
    used, now = folder / f"{digest_of(path)}.npz", time.time()
    os.utime(used, (now - 89 * DAY, now - 89 * DAY))
    load_annotations(path)
    assert used.stat().st_mtime > now - DAY
    old, unfinished, recent = (folder / name for name in ("b.npz", "b.npz.0123abcd.part", "c.npz"))
    for file, days in ((old, 91), (unfinished, 91), (recent, 89)):
        file.touch()
        os.utime(file, (now - days * DAY, now - days * DAY))
    load_annotations(path.with_name("val.json"))
    assert sorted(folder.iterdir()) == sorted([used, recent, folder / f"{digest_of(path.with_name('val.json'))}.npz"])


def load_at_once(barrier, path):
    barrier.wait()
    assert_equal(load_annotations(path), read_annotations(path))


def test_processes_that_start_at_once(path, folder):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=load_at_once, args=(barrier, path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [file.name for file in folder.iterdir()] == [f"{digest_of(path)}.npz"]


def test_a_file_changed_while_it_is_read_is_not_kept(path, folder, monkeypatch):
    def slowly(path):
        annotations = read_annotations(path)
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
        return annotations

    monkeypatch.setattr(annotation_cache, "read_annotations", slowly)
    load_annotations(path)
    assert not folder.exists()

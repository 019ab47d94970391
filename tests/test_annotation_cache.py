import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
from conftest import change_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet import annotation_cache
from retinanet.annotation_cache import cache_path, load_annotations
from retinanet.annotations import read_annotations
from retinanet.errors import UserError


@pytest.fixture
def path(coco_path):
    return coco_path / "train.json"


@pytest.fixture
def parsed(monkeypatch):
    """How often a file was parsed."""
    calls = []
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda path: calls.append(path) or read_annotations(path))
    return calls


def assert_equal(annotations, wanted):
    wanted = wanted._replace(fingerprint=hashlib.sha256(annotations.path.read_bytes()).hexdigest())
    for name, got, value in zip(annotations._fields, annotations, wanted, strict=True):
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype
            assert np.array_equal(got, value), name
        else:
            assert list(got) == list(value) if name == "file_names" else got == value


def test_parsed_once_and_equal(path, parsed):
    for _ in range(3):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 1


def test_names_of_all_kinds_survive(path):
    names = ["cat\0", "dög", "  ", "猫\n"]

    def rename(content):
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        content["images"][0]["file_name"] = "sub/ä b.png"

    change_json(path, rename)
    load_annotations(path)
    assert load_annotations(path).class_names == names
    assert load_annotations(path).file_names[0] == "sub/ä b.png"


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


def test_of_another_version_is_made_anew(path, parsed, monkeypatch):
    load_annotations(path)
    monkeypatch.setattr(annotation_cache, "FORMAT", "retinanet annotations of another version")
    load_annotations(path)
    load_annotations(path)
    assert len(parsed) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_broken_cache_is_made_anew(path, data):
    wanted = load_annotations(path)
    content = bytearray(cache_path(path).read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "other"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = data.draw(st.binary(max_size=200))
    cache_path(path).write_bytes(content)
    assert_equal(load_annotations(path), wanted)


def test_a_cache_with_code_in_it_runs_none(path, tmp_path):
    class Mischief:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "mischief"),))

    wanted = load_annotations(path)
    with zipfile.ZipFile(cache_path(path)) as archive:
        names = archive.namelist()
    np.savez(cache_path(path), **{name.removesuffix(".npy"): np.array([Mischief()], object) for name in names})
    assert_equal(load_annotations(path), wanted)
    assert not (tmp_path / "mischief").exists()


def test_a_folder_that_cannot_be_written_to_is_no_error(path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied", "train.cache.npz")

    monkeypatch.setattr(annotation_cache, "written_whole", refuse)
    assert_equal(load_annotations(path), read_annotations(path))
    assert not cache_path(path).exists()


def test_a_file_changed_while_it_is_read_is_not_kept(path, monkeypatch):
    def slowly(path):
        annotations = read_annotations(path)
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
        return annotations

    monkeypatch.setattr(annotation_cache, "read_annotations", slowly)
    load_annotations(path)
    assert not cache_path(path).exists()

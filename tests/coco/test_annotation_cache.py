import hashlib
import json
import os
import resource
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.data_folder import change_json

from retinanet.coco import annotation_cache
from retinanet.coco.annotation_arrays import DTYPES
from retinanet.coco.annotation_cache import cache_path, load_annotations
from retinanet.coco.annotations import owners_of, read_annotations
from retinanet.runtime.errors import UserError


@pytest.fixture
def path(coco_path):
    return coco_path / "train.json"


@pytest.fixture
def parsed(monkeypatch):
    """How often a file was parsed."""
    calls = []
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda path: calls.append(path) or read_annotations(path))
    return calls


def assert_equal(annotations, wanted, with_fingerprint=True):
    if with_fingerprint:
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
    monkeypatch.setattr(annotation_cache, "CACHE_FORMAT", "retinanet annotations of another version")
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


def forged(path, **changes):
    """The cache of `path` with some of its arrays exchanged, or made from what they are."""
    load_annotations(path)
    with np.load(cache_path(path)) as file:
        content = dict(file)
    for name, change in changes.items():
        content[name] = change(content[name].copy()) if callable(change) else np.array(change)
    np.savez(cache_path(path), **content)
    return cache_path(path)


def with_name(name):
    """The name of the second of 8 images exchanged."""
    names = [b"1.png", name, *(b"%d.png" % number for number in range(3, 9))]
    return {
        "name_text": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": np.cumsum([len(one) for one in names]),
    }


def put(value, *place):
    def change(array):
        array[place] = value
        return array

    return change


FORGED = {
    "boxes in fractions": {"boxes": lambda boxes: boxes / 1000},
    "a name that leaves the folder": with_name(b"../../../etc/passwd"),
    "a name that leaves it later": with_name(b"a/../../x.png"),
    "an absolute name": with_name(b"/etc/passwd"),
    "a name with a null": with_name(b"a\0b.png"),
    "an empty name": with_name(b""),
    "a name that is no text": with_name(b"\xff.png"),
    "a name of a lone surrogate": with_name(b"\xed\xa0\x80.png"),
    "names that part a letter": {**with_name("ä.png".encode()), "name_ends": put(6, 0)},
    "names that end before they start": {"name_ends": put(1, 3)},
    "names past their text": {"name_ends": put(10**12, 7)},
    "names of a negative end": {"name_ends": put(-3, 0)},
    "names of two columns": {"name_ends": np.ones((8, 2), np.int64)},
    "one name": {"name_ends": np.array(5)},
    "too few names": {"name_ends": lambda ends: ends[:-1]},
    "a box of NaN": {"boxes": put(np.nan, 2, 0)},
    "a box of infinity": {"boxes": put(np.inf, 2, 3)},
    "a box of 10^15": {"boxes": put(-1e15, 2, 0)},
    "a box of negative width": {"boxes": put(-1, 1, 2)},
    "boxes of three": {"boxes": lambda boxes: boxes[:, :3]},
    "boxes of float32": {"boxes": lambda boxes: boxes.astype(np.float32)},
    "boxes of another byte order": {"boxes": lambda boxes: boxes.astype(">f8")},
    "boxes of objects": {"boxes": lambda boxes: boxes.astype(object)},
    "fewer boxes": {"boxes": lambda boxes: boxes[:-1]},
    "a label of -1": {"labels": put(-1, 0)},
    "a label past the classes": {"labels": put(2, 0)},
    "labels of floats": {"labels": lambda labels: labels.astype(float)},
    "an area of NaN": {"areas": put(np.nan, 0)},
    "a negative area": {"areas": put(-1, 0)},
    "a crowd of 7": {"crowds": lambda crowds: put(7, 0)(crowds.view(np.uint8)).view(bool)},
    "an image of no height": {"sizes": put(0, 1, 0)},
    "sizes of three": {"sizes": np.ones((8, 3), np.int64)},
    "an image id twice": {"image_ids": put(1, 4)},
    "no images": {"image_ids": lambda ids: ids[:0]},
    "annotations before the first": {"first": put(-1, 0)},
    "annotations past the last": {"first": put(10**9, 8)},
    "falling firsts": {"first": put(7, 2)},
    "classes of no text": {"class_names": json.dumps([1, 2])},
    "no classes": {"class_names": "[]", "category_ids": np.zeros(0, np.int64)},
    "a class too many": {"class_names": json.dumps(["red", "green", "blue"])},
    "classes that are no list": {"class_names": json.dumps({"red": 1, "green": 2})},
    "classes nested": {"class_names": "[" * 10**5},
    "class ids twice": {"category_ids": [1, 1]},
    "class ids that fall": {"category_ids": [2, 1]},
    "class ids by rows": {"category_ids": [[1], [2]]},
    "a key of objects": {"key": np.array([None])},
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_cache_is_made_again(path, parsed, kind):
    forged(path, **FORGED[kind])
    wanted = read_annotations(path)
    for _ in range(2):
        assert_equal(load_annotations(path), wanted)
    assert len(parsed) == 2  # before it was forged, and once again after


def test_what_the_file_may_say_the_cache_may_say(path, parsed):
    """Odd but sound values pass both checks, so that such a file is not parsed at each start."""

    def change(content):
        content["images"][0]["file_name"] = "a..b/...png"
        content["images"][1].update(file_name="ä/猫😀.png", height=2**62)
        content["images"][2].update(id=-(2**63), file_name="./x")
        content["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [-9e14, 0, 0, 0.5], "area": 9e14}]
        content["categories"] = [{"id": -5, "name": "😀" * 1000}, {"id": 1, "name": ""}]

    change_json(path, change)
    for _ in range(2):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 1
    change_json(path, lambda content: content.update(annotations=[]))
    for _ in range(2):
        assert_equal(load_annotations(path), read_annotations(path))
    assert len(parsed) == 2


def as_json(annotations):
    """The file that packs to `annotations`, which may hold anything."""
    images = zip(annotations.image_ids.tolist(), annotations.file_names, annotations.sizes.tolist(), strict=True)
    categories = zip(annotations.category_ids, annotations.class_names, strict=True)
    objects = []
    for row, owner in enumerate(owners_of(annotations)):
        objects.append(
            {
                "image_id": int(annotations.image_ids[owner]),
                "category_id": annotations.category_ids[annotations.labels[row]],
                "bbox": annotations.boxes[row].tolist(),
                "area": float(annotations.areas[row]),
                "iscrowd": int(annotations.crowds[row]),
            }
        )
    return {
        "images": [{"id": id_, "file_name": name, "height": h, "width": w} for id_, name, (h, w) in images],
        "categories": [{"id": id_, "name": name} for id_, name in categories],
        "annotations": objects,
    }


NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 8, 10**9, 2**62, 46, 47, 255])
REALS = st.sampled_from([-1e300, -1e15, -1.0, -0.0, 0.0, 0.5, 9e14, 1e15, float("nan"), float("inf")])


@settings(
    max_examples=int(os.environ.get("MUTATIONS", 50)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_is_believed_is_what_a_file_could_say(path, data):
    """Arrays changed at random pass only if the file that they could come from passes its checks and packs to them."""
    load_annotations(path)
    cache_path(path).unlink()
    changes = {}
    for name in data.draw(st.sets(st.sampled_from([*DTYPES, "name_text", "name_ends"]), min_size=1, max_size=2)):
        place, length = data.draw(st.integers(0, 7)), data.draw(st.sampled_from([None, None, None, 0, 1, 6, -1]))
        value = data.draw(REALS if name in ("boxes", "areas") else NUMBERS)
        kind = np.uint8 if name in ("name_text", "crowds") else None

        def change(array, place=place, length=length, value=value, kind=kind):
            bits = array.view(kind) if kind else array
            if len(array):
                bits.flat[place % bits.size] = value % 256 if kind else value
            return array[:length]

        changes[name] = change
    forged(path, **changes)
    key = annotation_cache._key(path)
    believed = annotation_cache._read(path, key)
    if believed is not None:
        other = path.with_name("other.json")
        other.write_text(json.dumps(as_json(believed)))
        assert_equal(believed._replace(path=other), read_annotations(other), with_fingerprint=False)


@pytest.mark.parametrize(
    "kind", ["compressed", "claims", "claims of nothing", "array", "pipe", "folder", "link", "version"]
)
def test_other_things_in_its_place(path, kind):
    wanted, cache = load_annotations(path), cache_path(path)
    with np.load(cache) as file:
        content = dict(file)
    cache.unlink()
    if kind == "compressed":
        content["boxes"] = np.zeros((10**7, 4))
        np.savez_compressed(cache, **content)
    elif kind.startswith("claims"):
        with zipfile.ZipFile(cache, "w") as archive:
            for name, array in content.items():
                with archive.open(f"{name}.npy", "w") as member:
                    header = np.lib.format.header_data_from_array_1_0(array)
                    if name == "boxes":
                        header["shape"] = (10**11, 4) if kind == "claims" else (0, 10**18)
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(array.tobytes() if kind == "claims" or name != "boxes" else b"")
    elif kind == "array":
        with open(cache, "wb") as file:
            np.save(file, content["boxes"])
    elif kind == "version":
        np.savez(cache, **content)
        cache.write_bytes(cache.read_bytes().replace(b"NUMPY\x01", b"NUMPY\x02"))
    elif kind == "pipe":
        os.mkfifo(cache)
    elif kind == "folder":
        cache.mkdir()
    else:
        cache.symlink_to("/dev/zero")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_equal(load_annotations(path), wanted)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


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

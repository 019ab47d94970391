"""A set that is written in any format reads as the same objects, or is refused before anything is written."""

import io
import json
import os
from contextlib import redirect_stdout
from os.path import normpath
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.length import IS_LONG

from retinanet.commands.convert import convert
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import convert_settings

CASES = settings(
    max_examples=2000 if IS_LONG else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
FORMATS = ("yolo", "voc", "csv", "coco")
# How far an edge may move: pixels, and a share of the side.
ROUNDING = {"yolo": (2e-3, 2e-6), "voc": (1.0, 0.0), "csv": (1e-5, 1e-8), "coco": (1e-5, 0.0)}
SIZES = ((64, 48), (7, 5), (1, 1), (2000, 3))
ORIENTATION, TURNED = 0x0112, range(5, 9)  # the EXIF tag, and its values for which width and height are exchanged
EASY = (  # every format holds these
    *("a", "img 1", "img -1", "-1", "0", "0007", "a.b.c", "WhatsApp Image 2023-01-01 at 10.00.00", "it's", "a,b;c"),
    *('say "cheese"', "50%", "%20", "#1", "a&b<c>", "[x]{y}", "~", "null", "yes", "1.0", "1e3", "a: b", "- b", "=1+1"),
    *("*x", "!y", "@z", "`", "|", "🐈", "👩‍🚀", "صورة", "שלום", "e\u0301te\u0301", "\u00e9t\u00e9", "ß", "İ", "猫"),
)
HARD = (
    *("", " a", "a ", "a\tb", "a\nb", "a\rb", "\x0b", "\x1b[31m", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe"),
    *(".hidden", "__MACOSX", "images", "labels", "train", "a\\b", "\u202eabc", "cat\0", "x" * 200),
)
NUMBERS = st.one_of(
    st.integers(-5, 70),
    st.floats(-5, 70),
    st.sampled_from([0, 0.1, 1e-9, 1e-4, 0.0005, 0.5, 1.5, 63.9, 64, 2000, -1e6, 1e6]),
)
SIDES = NUMBERS.map(abs).filter(lambda side: not 9e-4 < side < 2.1e-3)  # clearly with area or without
DOUBTFUL = ("look like fractions", "has a segmentation but no bbox")  # boxes that every format refuses
IDS = st.one_of(st.integers(-3, 30), st.sampled_from([2**33 + 1, -(2**40), 2**63 - 1, -(2**63)]))
EXTRAS = st.dictionaries(
    st.sampled_from(["segmentation", "score", "attributes", "license", "é"]),
    st.sampled_from([None, 1.5, "x", [[1, 2, 1.5, 2, 1, 2]], {"weather": "rain"}, "\ud83d"]),
    max_size=2,
)


def picture(path: Path, upright_size: tuple[int, int], number: int, orientation: int) -> None:
    """Writes an image whose bytes tell it from all others of the set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    size = upright_size[::-1] if orientation in TURNED else upright_size
    Image.new("RGB", size, (number, 200, 0)).save(path, "PNG", exif=exif)


def stays_inside(name: str) -> bool:
    """Returns False for names that the test itself would write outside its folder."""
    return not name.startswith("/") and ".." not in name.split("/")


@st.composite
def data_sets(draw):
    """A dict from set names to COCO contents, and whether every format must be able to hold them."""
    is_easy = draw(st.booleans())
    parts = st.sampled_from(EASY) if is_easy else st.one_of(st.sampled_from(EASY + HARD), st.text(max_size=5))
    suffixes = st.sampled_from((".png", ".PNG", ".jpg", ".jpeg") if is_easy else (".png", ".PNG", ".jpg", "", ".txt"))
    names = st.builds(
        lambda folders, name, suffix: "/".join([*folders, name + suffix]),
        st.lists(parts, max_size=2),
        parts,
        suffixes,
    ).filter(stays_inside)
    few = st.lists(parts, unique=is_easy, min_size=int(is_easy), max_size=6)
    class_names = draw(st.one_of(few, few, few, st.just([f"class {number}" for number in range(300)])))
    category_ids = (
        draw(st.lists(IDS, min_size=len(class_names), max_size=len(class_names), unique=True))
        if len(class_names) < 20
        else list(range(-5, 2 * len(class_names) - 5, 2))
    )
    categories = [
        {"id": each, "name": name, "supercategory": "thing"}
        for each, name in zip(category_ids, class_names, strict=True)
    ]
    sets = {}
    for set_name in draw(st.sampled_from([("train",), ("train", "val"), ("val", "test")])):
        key = (lambda name: os.path.splitext(name)[0]) if is_easy else str
        files = draw(st.lists(names, min_size=1, max_size=4, unique_by=key))
        ids = draw(st.lists(IDS, min_size=len(files), max_size=len(files), unique=True))
        images = []
        for number, (image_id, name) in enumerate(zip(ids, files, strict=True)):
            width, height = SIZES[number % len(SIZES)]
            entry = {"id": image_id, "file_name": name, "width": width, "height": height}
            images.append({**draw(EXTRAS), **entry, "orientation": draw(st.integers(1, 8))})
        boxes = st.fixed_dictionaries(
            {
                "image_id": st.sampled_from(ids),
                "category_id": st.sampled_from(category_ids or [0]),
                "bbox": st.tuples(NUMBERS, NUMBERS, SIDES, SIDES).map(list),
            },
            optional={"area": st.sampled_from([0, 7, 12.25]), "iscrowd": st.sampled_from([0, 1])},
        )
        annotations = []
        for entry in draw(st.lists(boxes, max_size=6 if categories else 0)):
            annotations.append({**draw(EXTRAS), "id": 10 * len(annotations) - 7, **entry})
        sets[set_name] = {
            "info": {"year": 2024},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
    return sets, is_easy


def write_sets(folder: Path, sets: dict) -> dict[bytes, tuple[str, dict]]:
    """Writes a data folder; returns the set and the entry of each image by the bytes of its file."""
    entries = {}
    for number, (set_name, content) in enumerate(sets.items()):
        for row, entry in enumerate(content["images"]):
            path = folder / "images" / set_name / entry["file_name"]
            picture(path, (entry["width"], entry["height"]), 20 * number + row, entry["orientation"])
            entries[path.read_bytes()] = set_name, entry
        (folder / f"{set_name}.json").write_text(json.dumps(content))
    return entries


def edges(box: list[float]) -> list[float]:
    left, top, width, height = box
    return [left, top, left + width, top + height]


def expected_objects(content: dict, image: dict, kind: str) -> list[tuple]:
    """The (class, edges, is crowd) of an image's objects as a format can hold them, in the order of the file."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    objects = []
    for entry in content["annotations"]:
        if entry["image_id"] != image["id"]:
            continue
        x1, y1, x2, y2 = edges(entry["bbox"])
        if kind != "coco":
            x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image["width"]), min(y2, image["height"])
            if x2 - x1 < max(1e-3, 1e-6 * image["width"]) or y2 - y1 < max(1e-3, 1e-6 * image["height"]):
                continue
        is_crowd = bool(entry.get("iscrowd"))
        if not is_crowd or kind in ("voc", "coco"):
            objects.append((names[entry["category_id"]], [x1, y1, x2, y2], is_crowd))
    return objects


def run(*words: object) -> None:
    with redirect_stdout(io.StringIO()):
        convert(convert_settings([str(word) for word in words]))


def refusal_of(*words: object) -> str:
    try:
        run(*words)
    except UserError as refused:
        return str(refused)
    return ""


def may_be_fractions(sets: dict) -> bool:
    """Returns True if all boxes of a set lie within its images' first pixel, so that a CSV file's may be fractions."""
    corners = [[edges(each["bbox"]) for each in content["annotations"]] for content in sets.values()]
    return any(boxes and all(0 <= edge <= 1 for box in boxes for edge in box) for boxes in corners)


def require_objects(back: Path, sets: dict, entries: dict, kind: str) -> None:
    """Compares a data folder with the sets that were written."""
    left = dict(entries)
    pixels, share = ROUNDING[kind]
    for set_name, content in sets.items():
        again = json.loads((back / f"{set_name}.json").read_text())
        class_names = {category["id"]: category["name"] for category in again["categories"]}
        ordered = sorted(content["categories"], key=lambda category: category["id"])
        assert [class_names[each] for each in sorted(class_names)] == [category["name"] for category in ordered]
        for image in again["images"]:
            path = back / "images" / set_name / image["file_name"]
            of_set, entry = left.pop(path.read_bytes())
            assert of_set == set_name
            objects = [
                (class_names[each["category_id"]], edges(each["bbox"]), bool(each["iscrowd"]))
                for each in again["annotations"]
                if each["image_id"] == image["id"]
            ]
            wanted = expected_objects(content, entry, kind)
            assert [(name, is_crowd) for name, _, is_crowd in objects] == [
                (name, is_crowd) for name, _, is_crowd in wanted
            ]
            limits = [pixels + share * side for side in (entry["width"], entry["height"])] * 2
            for (_, now, _), (_, before, _) in zip(objects, wanted, strict=True):
                assert all(abs(a - b) <= limit for a, b, limit in zip(now, before, limits, strict=True)), (now, before)
            if kind in ("yolo", "coco"):
                assert normpath(entry["file_name"]).endswith(normpath(image["file_name"]))
            if kind == "coco":
                assert {**entry, "file_name": image["file_name"]} == image
        if kind == "coco":
            before = {each["id"]: each for each in content["annotations"]}
            for each in again["annotations"]:
                assert {**each, **before.pop(each["id"])} == each
            assert not before
            assert (again["info"], again["categories"]) == (content["info"], content["categories"])
    assert not left


@CASES
@given(drawn=data_sets(), kind=st.sampled_from(FORMATS), images=st.sampled_from(["link", "copy"]))
def test_what_is_written_reads_the_same(drawn, kind, images):
    sets, is_easy = drawn
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            entries = write_sets(folder / "source", sets)
        except (OSError, ValueError):  # no files can have these names
            assume(False)
        words = ("--from", "coco", "--to", kind, "--images", images, "--output_path", folder / "there")
        if refusal := refusal_of(folder / "source", *words):
            event(f"refused as {kind}")
            assert sorted(path.name for path in folder.iterdir()) == ["source"]
            is_doubtful = any(reason in refusal for reason in DOUBTFUL)
            assert not is_easy or is_doubtful or ("would be read as" in refusal and may_be_fractions(sets)), refusal
            return
        event(f"written as {kind}")
        assert not list(folder.rglob("*.part"))
        run(folder / "there", "--from", kind, "--output_path", folder / "back")
        require_objects(folder / "back", sets, entries, kind)

"""A good dataset damaged in every way that check_data knows, each found by its kind and nothing else with it."""

import json
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.data_folder import as_corners, change_json, in_fractions
from support.scripts import ROOT

from retinanet.check_data.findings import FINDING_KINDS
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import require_same_classes
from retinanet.data.dataset import CocoDataset
from retinanet.data.learnable import require_objects, require_reach
from retinanet.runtime.errors import UserError

SIDE = 64
SETS = ("train", "val")
FLAGS = ("--min_side", 64, "--max_side", 96, "--max_pixels", 50_000)
# Each image has these objects of both classes; 8 images make 24 of each.
BOXES = ([2, 3, 20, 20], [30, 4, 20, 22], [8, 34, 26, 24])


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for number, name in enumerate(SETS):
        (folder / "images" / name).mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, 9):
            suffix = "jpg" if image_id == 7 else "png"
            noise([number, image_id]).save(folder / "images" / name / f"{image_id}.{suffix}")
            images.append({"id": image_id, "file_name": f"{image_id}.{suffix}", "width": SIDE, "height": SIDE})
            for category_id, shift in ((1, 0), (2, 1)):
                for left, top, width, height in BOXES:
                    annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id}
                    annotation |= {"bbox": [left + shift, top, width, height], "area": width * height * 0.7}
                    annotations.append({**annotation, "iscrowd": 0})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def check(script, tmp_path, monkeypatch):
    """Run the check on a folder, without its pictures: (exit code, {"set kind": number}, the rest)."""

    def call(folder, *arguments):
        monkeypatch.setattr("retinanet.check_data.charts.draw", lambda *_: None)
        monkeypatch.setattr("retinanet.commands.check_data.draw_lookalikes", lambda *_: False)
        run = script("retinanet/check_data/__main__", "--coco_path", folder, *FLAGS, *arguments)
        assert run.err == "" or run.code == 2
        found = re.findall(r"^- (\w+): (\w+): (\d+) \(", run.out, re.MULTILINE)
        return run.code, {f"{name} {kind}": int(number) for name, kind, number in found}, run

    return call


def entry(part, row, *removed, file="train.json", **values):
    """Change an entry of an annotation file."""

    def damage(folder):
        def change(content):
            content[part][row].update(values)
            for key in removed:
                del content[part][row][key]

        change_json(folder / file, change)

    return damage


def box(*numbers, **values):
    """Give the first object this box, and an area that fits it."""
    area = max(0, numbers[2]) * max(0, numbers[3]) if len(numbers) == 4 else 1
    return entry("annotations", 0, bbox=list(numbers), **{"area": area, **values})


def content(change, file="train.json"):
    return lambda folder: change_json(folder / file, change)


def image(change, name="train/1.png"):
    """Do something to the path of an image file."""
    return lambda folder: change(folder / "images" / name)


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def copied(source, target):
    return lambda folder: shutil.copy(folder / "images" / source, folder / "images" / target)


def as_bitmap(folder):
    """The same pixels under another name, in another format."""
    with Image.open(folder / "images/train/3.png") as picture:
        picture.save(folder / "images/val/5.bmp")
    (folder / "images/val/5.png").unlink()
    entry("images", 4, file="val.json", file_name="5.bmp")(folder)


def mirrored(folder):
    ImageOps.mirror(noise([0, 3])).save(folder / "images/val/5.png")


def deep(folder):
    """A picture of 12 bits in a file of 16."""
    path = folder / "images" / "train" / "1.png"
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L")).astype(np.uint16)
    Image.fromarray(grey * 16).save(path)


def tiny(content):
    for annotation in content["annotations"]:
        annotation.update(bbox=[*annotation["bbox"][:2], 8, 8], area=64)


def all_the_same(content):
    for annotation in content["annotations"]:
        annotation.update(bbox=[4, 4, 32, 32])


def turned(orientation, stated):
    def damage(folder):
        exif = Image.Exif()
        exif[274] = orientation
        noise(1).crop((0, 0, 64, 60)).save(folder / "images/train/1.png", exif=exif)
        entry("images", 0, height=stated[0], width=stated[1])(folder)

    return damage


def repeated(part, row, file="train.json", **values):
    return content(lambda content: content[part].append({**content[part][row], **values}), file)


def without(part, kept):
    def change(content):
        content[part] = [one for one in content[part] if kept(one)]

    return content(change)


def both(*damages):
    def damage(folder):
        for one in damages:
            one(folder)

    return damage


def crowds_only(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def listed_twice(content):
    content["images"].append({**content["images"][0], "id": 99, "file_name": "./1.png"})
    content["annotations"] += [
        {**one, "id": one["id"] + 1000, "image_id": 99} for one in content["annotations"] if one["image_id"] == 1
    ]


EMPTY_CLASS = both(*(repeated("categories", 0, id=3, name="cow", file=f"{name}.json") for name in SETS))
NAMED_ALIKE = both(*(entry("categories", 1, file=f"{name}.json", name="cat") for name in SETS))
EMPTY_IMAGE = both(
    image(lambda path: noise(88).save(path), "train/88.png"), repeated("images", 0, id=88, file_name="88.png")
)

# What is done to the good set, and all that the report then says of train, or of val where it stands before the kind.
DAMAGES = [
    (repeated("categories", 0, id="3"), {"category_malformed": 1}),
    (repeated("categories", 0, id=3, name=None), {"category_malformed": 1}),
    (entry("categories", 1, "name"), {"category_malformed": 1, "val classes_differ": 1}),
    (repeated("categories", 0, name="bird"), {"category_id_twice": 1}),
    (NAMED_ALIKE, {"category_name_twice": 1, "val category_name_twice": 1}),
    (entry("categories", 1, file="val.json", name="wolf"), {"val classes_differ": 1}),
    (repeated("images", 0, id="8"), {"image_id_malformed": 1}),
    (repeated("images", 0, id=2**70), {"image_id_malformed": 1}),
    (repeated("images", 0, file_name="other.png"), {"image_id_twice": 1}),
    (entry("images", 0, "file_name"), {"file_name_missing": 1, "image_unlisted": 1}),
    (entry("images", 0, file_name="1\ud800.png"), {"file_name_malformed": 1, "image_unlisted": 1}),
    (entry("images", 0, file_name="../val/1.png"), {"file_name_outside": 1, "image_unlisted": 1}),
    (entry("images", 0, file_name="C:\\data\\1.png"), {"file_name_windows": 1, "image_unlisted": 1}),
    (entry("images", 0, file_name="images\\train\\1.png"), {"file_name_windows": 1, "image_unlisted": 1}),
    (entry("images", 0, width=0), {"image_size_malformed": 1}),
    (entry("images", 0, "height"), {"image_size_malformed": 1}),
    (entry("annotations", 0, image_id=99), {"image_unknown": 1}),
    (entry("annotations", 0, "image_id"), {"image_unknown": 1}),
    (entry("annotations", 0, category_id=3), {"category_unknown": 1}),
    (entry("annotations", 0, image_id="1"), {"id_malformed": 1}),
    (entry("annotations", 0, category_id=1.0), {"id_malformed": 1}),
    (entry("annotations", 0, "bbox", segmentation=[[5, 5, 9, 5, 9, 9]]), {"box_missing": 1}),
    (box(0, 0, 0, 0, segmentation=[[5, 5, 9, 5, 9, 9]]), {"box_missing": 1}),
    (content(in_fractions), {"box_in_fractions": 1, "nothing_reached": 1, "box_tiny": 48}),
    (content(in_fractions, "val.json"), {"val box_in_fractions": 1, "val box_tiny": 48}),
    (entry("annotations", 0, bbox=[1, 2, 3]), {"box_malformed": 1}),
    (entry("annotations", 0, bbox=[1, 2, float("nan"), 3]), {"box_malformed": 1}),
    (entry("annotations", 0, bbox=["1", 2, 3, 4]), {"box_malformed": 1}),
    (box(40, 40, -20, -20), {"box_negative": 1}),
    (entry("annotations", 0, area=-4), {"area_malformed": 1}),
    (entry("annotations", 0, iscrowd="no"), {"crowd_malformed": 1}),
    (image(lambda path: path.unlink()), {"image_missing": 1}),
    (image(lambda path: path.write_bytes(b"")), {"image_unreadable": 1}),
    (image(lambda path: path.write_text("no image")), {"image_unreadable": 1}),
    (image(cut_off), {"image_damaged": 1}),
    (image(cut_off, "train/7.jpg"), {"image_damaged": 1}),
    (image(lambda path: Image.new("1", (300, 300)).save(path)), {"image_too_large": 1}),
    (image(lambda path: noise(0).crop((0, 0, 64, 60)).save(path)), {"image_size_differs": 1}),
    (entry("images", 0, width=65), {"image_size_differs": 1}),
    (
        content(crowds_only),
        {"nothing_to_learn": 1, "crowd": 48, "image_without_objects": 8, "class_without_objects": 2},
    ),
    (
        content(lambda content: content.pop("annotations") and None),
        {"nothing_to_learn": 1, "image_without_objects": 8, "class_without_objects": 2},
    ),
    (content(tiny), {"nothing_reached": 1}),
    (content(all_the_same), {"one_box_for_all": 1, "object_twice": 32}),
    (box(5, 5, 0, 20), {"box_empty": 1}),
    (box(70, 5, 20, 20), {"box_outside": 1}),
    (box(-20, 5, 20, 20), {"box_outside": 1}),
    (content(as_corners), {"box_as_corners": 32, "box_clipped": 32}),
    (box(5, 5, 0.5, 20), {"box_tiny": 1}),
    (box(5, 5, 20, 20, area=900), {"area_too_large": 1}),
    (entry("annotations", 1, id=1), {"annotation_id_twice": 1}),
    (repeated("annotations", 0, id=99), {"object_twice": 1}),
    (content(listed_twice), {"file_twice": 1}),
    (copied("train/1.png", "train/2.png"), {"image_twice": 1}),
    (copied("train/1.png", "val/2.png"), {"val image_in_two_sets": 1}),
    (as_bitmap, {"val image_in_two_sets": 1}),
    (mirrored, {"val image_like_in_two_sets": 1}),
    # Worth knowing, and no mistake.
    (content(crowds_only, "val.json"), {"val set_without_objects": 1}),
    (content(lambda content: content.pop("annotations") and None, "val.json"), {"val set_without_objects": 1}),
    (EMPTY_CLASS, {"class_without_objects": 1, "val class_without_objects": 1}),
    (without("annotations", lambda one: (one["category_id"], one["image_id"] > 2) != (1, False)), {"class_scarce": 1}),
    (EMPTY_IMAGE, {"image_without_objects": 1}),
    (repeated("annotations", 0, id=99, iscrowd=1), {"crowd": 1}),
    (box(-4, 5, 20, 20), {"box_clipped": 1}),
    (box(50, 5, 20, 20), {"box_clipped": 1}),
    (box(50, 5, 14.4, 20), {"box_rounded": 1}),
    (turned(6, (64, 60)), {"image_turned": 1}),
    (turned(6, (60, 64)), {"boxes_turned": 1}),
    (turned(3, (60, 64)), {"frame_untold": 1}),
    (deep, {"white_level_far": 1}),
    (copied("train/1.png", "train/extra.PNG"), {"image_unlisted": 1}),
]


def test_nothing_is_found_in_a_good_set(check, good):
    code, found, run = check(good)
    assert (code, found) == (0, {})
    assert "no mistakes; charts in" in run.out.splitlines()[1]
    assert "Mistakes: none\n\nWorth knowing: none\n" in run.out
    assert run.out.splitlines()[0] == f"No set test in {good}: not checked"


@pytest.mark.parametrize(("damage", "expected"), DAMAGES, ids=[" ".join(expected) for _, expected in DAMAGES])
def test_each_damage_is_found_under_its_name(check, good, tmp_path, damage, expected):
    folder = shutil.copytree(good, tmp_path / "data")
    damage(folder)
    code, found, _ = check(folder)
    assert found == {key if " " in key else f"train {key}": number for key, number in expected.items()}
    assert code == any(FINDING_KINDS[key.split()[-1]].is_mistake for key in expected)
    is_refused = any("training refuses" in FINDING_KINDS[key.split()[-1]].says for key in expected)
    with pytest.raises(UserError) if is_refused else nullcontext():
        train_on(folder)


def train_on(folder):
    """Read all that a training reads; UserError where it would refuse."""
    train, val = (load_annotations(folder / f"{name}.json") for name in SETS)
    require_same_classes(val, train.class_names, train.category_ids, train.path)
    for name, annotations in zip(SETS, (train, val), strict=True):
        dataset = CocoDataset(annotations, folder / "images" / name, 64, 96, 50_000)
        if name == "train":
            require_objects(dataset)
            require_reach(dataset)
        for index in range(len(dataset)):
            dataset.read(index)


def test_objects_that_only_tiles_show_large_enough_can_be_learned(check, coco_path):
    """As in training, which refuses such objects without tiles."""

    def small(content):
        for image in content["images"]:
            image.update(width=512, height=512)
            Image.new("RGB", (512, 512)).save(coco_path / "images" / "train" / image["file_name"])
        for number, one in enumerate(content["annotations"]):
            one.update(bbox=[16, 16, 30 + number % 3, 32])

    change_json(coco_path / "train.json", small)
    sides = ("--min_side", 64, "--max_side", 64)
    assert "train nothing_reached" in check(coco_path, *sides)[1]
    assert "train nothing_reached" not in check(coco_path, *sides, "--tile", 64)[1]


def test_every_kind_is_tried_and_every_fault_is_of_a_kind():
    tried = {key.split()[-1] for _, expected in DAMAGES for key in expected}
    by_pixels = {"boxes_read_otherwise", "boxes_fit_no_reading", "boxes_untold"}  # tried in test_box_check.py
    assert tried == set(FINDING_KINDS) - {"image_not_turned"} - by_pixels  # the former only with --exif raw
    raised = set()
    for path in (ROOT / "retinanet").rglob("*.py"):
        raised |= set(re.findall(r'DataFault\(\s*"(\w+)"', path.read_text()))
    assert len(raised) > 10
    assert raised <= set(FINDING_KINDS)


def test_raw_leaves_pictures_as_they_are_where_the_size_does_not_tell(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")
    turned(6, (60, 64))(folder)
    assert check(folder, "--exif", "raw")[1] == {"train image_not_turned": 1}


def test_examples_name_the_place_and_are_few(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")
    for row in range(5):
        entry("annotations", row, bbox=[70 + row, 5, 20, 20])(folder)
    box_lines = [
        "- train: box_outside: 5 (a box completely outside its image; training drops it)",
        "    annotation 1 of image 1 (1.png): bbox [70.0, 5.0, 20.0, 20.0] in 64 x 64 pixels (height x width)",
    ]
    code, _, run = check(folder, "--all")
    assert code == 0  # nothing that needs a hand
    lines = run.out.splitlines()
    start = lines.index(box_lines[0])
    assert lines[start + 1] == box_lines[1]
    assert lines[start + 4] == "    ... and 2 more"
    assert lines[start + 5].startswith("    Fix: Write (left, top, width, height)")


def test_the_short_form_begins_with_the_verdict_and_is_short(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")

    def many(content):
        content["categories"] += [{"id": number, "name": f"class {number}"} for number in range(3, 90)]
        for one in content["annotations"][:30]:
            one["area"] = 1e6

    for name in SETS:
        change_json(folder / f"{name}.json", many)
    code, found, run = check(folder)
    lines = run.out.splitlines()
    assert code == 1
    assert lines[1].startswith(f"{folder}: {30 * len(SETS)} mistakes of 1 kind; charts in ")
    assert len(lines) <= 43  # with what was not checked
    assert lines[-1] == "More counts and examples: add --all"
    assert "train area_too_large" in found
    assert len(check(folder, "--all")[2].out.splitlines()) > 100


@pytest.mark.parametrize("part", ["images", "categories"])
def test_a_file_with_nothing_but_mistakes(check, good, tmp_path, part):
    folder = shutil.copytree(good, tmp_path / "data")
    change_json(folder / "train.json", lambda content: content.update({part: [{"id": "a"}, {"id": "b"}]}))
    code, found, _ = check(folder)
    assert code == 1
    assert found["train image_id_malformed" if part == "images" else "train category_malformed"] == 2


@pytest.mark.parametrize(
    ("damage", "arguments", "words"),
    [
        (lambda folder: (folder / "val.json").write_text('{"images": ['), (), "val.json: not valid JSON"),
        (lambda folder: (folder / "train.json").write_text("[]"), (), "train.json: holds a list"),
        (content(lambda content: {**content, "images": []}), (), "train.json: has no images"),
        (lambda folder: shutil.rmtree(folder / "images" / "val"), (), "images/val: no such image folder"),
        (lambda folder: shutil.rmtree(folder), (), "no such data folder"),
        (lambda folder: [(folder / f"{name}.json").unlink() for name in SETS], (), "holds no train.json, but images"),
        (lambda _: None, ("--sets", "test"), "test.json: no such annotation file"),
        (lambda _: None, ("--sets", "train", "train"), "a set is listed twice"),
        (lambda _: None, ("--max_side", 64, "--min_side", 96), "--min_side 96 is larger than --max_side 64"),
        (lambda _: None, ("--picture_path", "charts.txt"), "is not the name of a picture"),
    ],
)
def test_what_can_not_be_checked_ends_with_2(check, good, tmp_path, damage, arguments, words):
    folder = shutil.copytree(good, tmp_path / "data")
    damage(folder)
    code, _, run = check(folder, *arguments)
    assert code == 2
    assert words in run.err
    assert run.err.startswith("check_data: error: ")  # not the name of its file, __main__.py
    assert "Traceback" not in run.err


def test_it_ends_with_an_account_of_the_files(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")
    (folder / "images" / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copy(folder / "images/train/1.png", folder / "images/train/.ipynb_checkpoints/1.png")
    shutil.copy(folder / "images/train/1.png", tmp_path / "9.png")
    (folder / "images" / "train" / "more").symlink_to(tmp_path / "9.png")
    (folder / "images" / "train" / "9.png").symlink_to(tmp_path / "9.png")
    (folder / "images" / "val" / "1.png").write_bytes(b"")

    _, found, run = check(folder, "--sets", "train")
    assert found["train image_unlisted"] == 1
    assert (
        "\nFiles: 9 read, 12 not read: 1 JSON that no checked set uses (val.json), 1 hidden "
        "(images/train/.ipynb_checkpoints/1.png), 9 not named by the annotations (images/train/9.png), 1 "
        "of another kind (images/train/more)\n"
    ) in run.out
    assert "1 not readable as an image (images/val/1.png)" in check(folder)[2].out


def test_numbers_by_class_size_and_anchor(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")
    box(2, 3, 2, 60)(folder)  # 30 : 1, which no anchor reaches
    out = check(folder, "--all")[2].out
    assert re.search(r"^ +train objects +images +val objects +images$", out, re.MULTILINE)
    assert re.search(r"^  cat +24 +8 +24 +8$", out, re.MULTILINE)
    assert re.search(r"^  all +48 +8 +48 +8$", out, re.MULTILINE)
    assert re.search(r"^  from 4:1 +1 +2\.1%  # +0 +0\.0%$", out, re.MULTILINE)
    assert re.search(r"^  16 to 32 +47 +97\.9%  #{20} +48 +100\.0%  #{20}$", out, re.MULTILINE)
    # Under an anchor of 32 x 32, 26 x 24 has an IoU above 0.5, and 20 x 20 in a cell of stride 8 one of 0.39 at best.
    (reached,) = re.findall(r"^  dog +24 +(\S+%) +(\S+%) +(\S+%)$", out, re.MULTILINE)
    assert reached == ("33.3%", "33.3%", "33.3%")
    assert re.search(r"^  --anchor_scale 2 +97\.9% ", out, re.MULTILINE)
    assert "\n  --anchor_scale 2 leaves 2.1% " in out[out.index("Ways to match more of them, most useful first") :]


def test_the_number_of_threads_changes_nothing(check, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "data")
    copied("train/1.png", "train/2.png")(folder)
    assert len({check(folder, "--threads", threads)[2] for threads in (1, 2, 5)}) == 1


def test_cocos_layout_with_80_classes_and_a_picture(script, good, tmp_path):
    folder, names = tmp_path / "coco", [f"class $number {number}" for number in range(80)]
    for name in SETS:
        shutil.copytree(good / "images" / name, folder / f"{name}2017")
        loaded = json.loads((good / f"{name}.json").read_text())
        loaded["categories"] = [{"id": number + 1, "name": text} for number, text in enumerate(names)]
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(loaded))
    picture = tmp_path / "charts.png"
    sets = ("--sets", "train2017", "val2017")
    run = script("retinanet/check_data/__main__", "--coco_path", folder, *sets, "--picture_path", picture)
    assert (run.code, run.err) == (0, "")
    says = "class_without_objects: 78 (a class without an object in the set)"
    assert f"- train2017: {says}: class $number 10, class $number 11, class $number 12 and 75 more\n" in run.out
    with Image.open(picture) as drawn:
        assert drawn.width == 1320
        assert drawn.height > 2000


def test_a_picture_that_can_not_be_written(script, good, tmp_path):
    nowhere = tmp_path / "no" / "charts.pdf"
    run = script("retinanet/check_data/__main__", "--coco_path", good, "--picture_path", nowhere)
    assert run.code == 2
    assert f"{nowhere}: can't be written" in run.err


def test_a_set_without_any_valid_image_is_reported(check, coco_path):
    def without_sizes(content):
        for image in content["images"]:
            del image["width"]

    change_json(coco_path / "train.json", without_sizes)
    code, found, _ = check(coco_path, "--min_side", 608, "--max_side", 1024)
    assert (code, "train image_size_malformed" in found) == (1, True)

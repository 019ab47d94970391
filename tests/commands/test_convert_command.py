"""python -m retinanet.convert, as a user runs it."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from support.data_folder import change_json, write_set
from support.photos import made_up_photo

from retinanet.coco.annotations import Annotations, read_annotations

CONVERT = "retinanet/convert/__main__"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def coco_path(tmp_path) -> Path:
    """A data folder whose image names are unique, as VOC's one folder of images needs."""
    for number, (name, count) in enumerate((("train", 8), ("val", 5), ("test", 4))):
        write_set(tmp_path / "data", name, count, first_id=1 + 20 * number)
        change_json(tmp_path / "data" / f"{name}.json", partial(_with_the_same_classes, shift=20 * number))
    return tmp_path / "data"


def _with_the_same_classes(content: dict, shift: int) -> None:
    for entry in content["categories"]:
        entry["id"] -= shift
    for entry in content["annotations"]:
        entry["category_id"] -= shift


def rows(annotations: Annotations) -> list[tuple]:
    """(image id, class, box, is crowd) of each annotation, in a fixed order."""
    owners = [
        image_id
        for image_id, start, stop in zip(annotations.image_ids, annotations.first, annotations.first[1:], strict=False)
        for _ in range(start, stop)
    ]
    names = [annotations.class_names[label] for label in annotations.labels]
    return sorted(zip(owners, names, annotations.boxes.tolist(), annotations.crowds.tolist(), strict=True))


@pytest.mark.parametrize(("kind", "rounding"), [("yolo", 0.002), ("voc", 0.0), ("csv", 0.0), ("coco", 0.0)])
def test_there_and_back(script, coco_path, kind, rounding):
    def with_a_crowd(content):
        content["annotations"].append({**content["annotations"][0], "id": 99, "iscrowd": 1, "bbox": [1, 2, 30, 20]})

    change_json(coco_path / "train.json", with_a_crowd)

    there = script(CONVERT, coco_path, "--to", kind, "--output_path", "there")
    back = script(CONVERT, "there", "--output_path", "back")

    assert (there.code, back.code, there.err, back.err) == (0, 0, "", "")
    for name in ("train", "val", "test"):
        before, after = (read_annotations(Path(folder) / f"{name}.json") for folder in (coco_path, "back"))
        assert (after.class_names, after.category_ids) == (before.class_names, before.category_ids)
        assert sorted(after.image_ids) == sorted(before.image_ids)
        keeps_crowds = kind in ("voc", "coco")
        wanted, got = [row for row in rows(before) if keeps_crowds or not row[3]], rows(after)
        assert [(*row[:2], row[3]) for row in got] == [(*row[:2], row[3]) for row in wanted]
        for one, other in zip(got, wanted, strict=True):
            assert one[2] == pytest.approx(other[2], abs=rounding)
        for row in range(len(after.image_ids)):
            assert Image.open(Path("back") / "images" / name / after.file_name(row)).size
    assert ("Note: crowds are left out, as the format has none: 1, as in 1.png" in there.out) == (
        kind in ("yolo", "csv")
    )


@pytest.mark.parametrize("images", ["link", "copy", "none"])
def test_images(script, coco_path, images):
    run = script(CONVERT, coco_path, "--images", images, "--output_path", "out")

    assert run.code == 0
    assert ("Check it: " in run.out) == (images != "none")
    there = sorted(Path("out/images/train").iterdir()) if images != "none" else []
    assert len(there) == (0 if images == "none" else 8)
    assert all(path.is_symlink() == (images == "link") for path in there)
    assert Path("out/images").exists() == (images != "none")
    assert sorted(path.name for path in Path("out").glob("*")) == ["images"] * (images != "none") + [
        "test.json",
        "train.json",
        "val.json",
    ]


@pytest.mark.parametrize("there", ["out/val.json", "out/images/test/x.png"])
def test_nothing_is_overwritten(script, coco_path, there):
    Path(there).parent.mkdir(parents=True)
    Path(there).write_text("mine")

    run = script(CONVERT, coco_path, "--output_path", "out")

    assert run.code == 2
    assert "already exists, and convert never overwrites" in run.err
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [Path(there)]
    assert Path(there).read_text() == "mine"


def test_a_data_folder_may_hold_other_things(script, coco_path):
    Path("out").mkdir()
    Path("out/README.md").write_text("mine")

    assert script(CONVERT, coco_path, "--output_path", "out").code == 0
    assert Path("out/README.md").read_text() == "mine"
    assert not list(Path("out").glob(".*"))


def test_a_json_file_is_split(script, coco_path):
    how = ("--split", 0.5, 0.25, 0.25, "--seed", 3)
    run = script(CONVERT, coco_path / "train.json", "--output_path", "out", *how)

    assert (run.code, run.err) == (0, "")
    assert "python -m retinanet.check_data --coco_path out --sets train val test" in run.out
    parts = [read_annotations(Path(f"out/{name}.json")) for name in ("train", "val", "test")]
    assert sorted(id for part in parts for id in part.image_ids) == list(range(1, 9))
    assert [len(part.image_ids) for part in parts] == [4, 2, 2]
    again = script(CONVERT, coco_path / "train.json", "--output_path", "again", *how)
    assert again.code == 0
    assert Path("out/val.json").read_text() == Path("again/val.json").read_text()


@pytest.mark.parametrize(
    ("flags", "counts"), [(("--split", 0.5, 0.25, 0.25), [8, 4, 4]), (("--to", "voc"), [8, 5, 3])], ids=["split", "voc"]
)
def test_the_same_file_names_in_several_sets(script, tmp_path, flags, counts):
    for name, count in (("train", 8), ("val", 5), ("test", 3)):
        write_set(tmp_path / "same", name, count)  # 1.png is in all, 5.png in two and 6.png in one
    sources = {path.read_bytes(): path for path in (tmp_path / "same").rglob("*.png")}
    assert len(sources) == 16

    there = script(CONVERT, "same", "--output_path", "there", *flags)
    back = script(CONVERT, "there", "--output_path", "back")

    assert (there.code, back.code, there.err, back.err) == (0, 0, "", "")
    note, *ids = [line for line in there.out.splitlines() if line.startswith("Note: ")]
    assert note.startswith(
        "Note: where images of several sets have the same file name, the set's name is put before it"
    )
    assert note.endswith(": 13, as in train_1.png")
    assert all(" ids of " in line and "are renumbered" in line for line in ids)
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        annotations = read_annotations(Path("back") / f"{name}.json")
        assert len(annotations.image_ids) == count
        for row in range(count):
            path = Path("back") / "images" / name / annotations.file_name(row)
            source = sources.pop(path.read_bytes())
            assert path.name in (source.name, f"{source.parent.name}_{source.name}")
            before = read_annotations(tmp_path / "same" / f"{source.parent.name}.json")
            is_there = before.image_ids == int(source.stem)
            boxes, wanted = (
                each.boxes[each.first[index] : each.first[index + 1]]
                for each, index in ((annotations, row), (before, int(is_there.argmax())))
            )
            assert boxes.tolist() == wanted.tolist()
    assert not sources


def test_groups_are_those_of_the_sources_file_names(script, coco_path, tmp_path):
    for name in ("train", "val"):
        write_set(tmp_path / "same", name, 6)
    run = script(CONVERT, "same", "--output_path", "out", "--split", 0.5, 0.5, "--group_by", "^[0-9]+")
    assert (run.code, run.err) == (0, "")
    names = [{path.name.partition("_")[2] for path in Path("out/images", name).iterdir()} for name in ("train", "val")]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 6


def test_look_alikes_stay_together_beside_groups_of_names(script, tmp_path):
    """Of 3 photos, each has 4 copies, two of which have a name in common with two of the next photo."""
    names = [f"{photo}{copy}_{photo + copy // 2}.jpg" for photo in range(3) for copy in range(4)]
    for name in names:
        photo, copy = int(name[0]), int(name[1])
        picture = made_up_photo(photo) if copy % 2 else ImageOps.mirror(made_up_photo(photo))
        (tmp_path / "source").mkdir(exist_ok=True)
        picture.resize((320 - 40 * copy, 240 - 30 * copy)).save(tmp_path / "source" / name)
    others = [made_up_photo(10 + number).save(tmp_path / "source" / f"x_{number + 5}.jpg") for number in range(6)]
    names += [f"x_{number + 5}.jpg" for number in range(len(others))]
    rows = "\n".join(f"{name},5,5,30,30,cat" for name in names)
    (tmp_path / "source" / "annotations.csv").write_text(rows + "\n")
    splitting = ("--split", 0.5, 0.5, "--group_similar")

    run = script(CONVERT, "source", "--output_path", "alike", *splitting)
    assert (run.code, run.err) == (0, "")
    assert "Note: 12 images of 18 stay together in 3 groups, the largest of 4\n" in run.out
    sets = [{path.name[0] for path in Path("alike/images", name).iterdir()} - {"x"} for name in ("train", "val")]
    assert not sets[0] & sets[1]
    assert len(sets[0] | sets[1]) == 3

    run = script(CONVERT, "source", "--output_path", "joined", *splitting, "--group_by", r"_(\d+)")
    assert "Note: 12 images of 18 stay together in 1 group, the largest of 12\n" in run.out


def test_look_alikes_need_images_that_can_be_read(script, coco_path):
    (coco_path / "images/train/1.png").write_bytes(b"none")
    run = script(CONVERT, coco_path, "--output_path", "out", "--split", 0.5, 0.5, "--group_similar")
    assert run.code == 2
    assert "images/train/1.png: can't be read as an image" in run.err
    assert not Path("out").exists()


def test_a_converted_set_trains(script, coco_path):
    assert script(CONVERT, coco_path, "--to", "yolo", "--output_path", "yolo").code == 0
    assert script(CONVERT, "yolo", "--output_path", "out").code == 0

    assert script("retinanet/check_data/__main__", "--coco_path", "out", "--min_side", 64, "--max_side", 96).code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", 0.5), "--split has 1 fraction. Use two"),
        (("--split", 0.5, 0.4), "the fractions add up to 0.9. They must"),
        (("--split", 0.999, 0.001), "are too few for a set val"),
        (("--split", 0.5, 0.5, "--group_by", "("), "is not a regular expression"),
        (("--split", 0.5, 0.5, "--group_by", "x"), "does not match 1.png"),
        (("--seed", 1), "--group_by, --group_similar and --seed only apply to --split"),
        (("--group_similar",), "--group_by, --group_similar and --seed only apply to --split"),
        (("--from", "voc"), "has no XML files"),
        (("--from", "yolo"), "has no data.yaml"),
        (("--from", "csv"), "has no CSV file of annotations"),
        (("--to", "tfrecord"), "--to"),
        (("--set", "a/b"), "--set 'a/b' is not a file name"),
        (("--set", "val", "--split", 0.5, 0.5), "--set names the only set that is written, and --split makes several"),
        (("--rows", "boxes"), "--rows only applies to YOLO labels, but"),
        (("--names", "cat"), "--names only applies to YOLO labels and CSV, but"),
        (("--image_path", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_mistakes_end_in_one_message(script, coco_path, flags, message):
    run = script(CONVERT, coco_path, "--output_path", "out", *flags)

    assert run.code == 2
    assert message in run.err
    assert run.err.count("\n") == 1
    assert not Path("out").exists()


def test_what_is_not_there_or_not_known(script):
    Path("empty").mkdir()

    assert "nowhere: no such file or folder" in script(CONVERT, "nowhere").err
    assert "empty: its format isn't recognised" in script(CONVERT, "empty").err


def test_roboflows_coco_layout_needs_no_conversion(script, coco_path):
    for ours, theirs in (("train", "train"), ("val", "valid")):
        folder = Path("roboflow") / theirs
        (coco_path / "images" / ours).rename(folder) if folder.parent.exists() else None
        folder.parent.mkdir(exist_ok=True)
        if not folder.exists():
            (coco_path / "images" / ours).rename(folder)
        (coco_path / f"{ours}.json").rename(folder / "_annotations.coco.json")

    run = script("retinanet/check_data/__main__", "--coco_path", "roboflow", "--min_side", 64, "--max_side", 96)

    assert run.code == 0
    assert "val" in run.out


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv"])
def test_where_training_is_pointed_at_it_the_command_is_named(script, coco_path, kind):
    script(CONVERT, coco_path, "--to", kind, "--output_path", "there")

    run = script("train", "--coco_path", "there", "--weights", "none")

    assert run.code == 2
    names = {"yolo": "the YOLO format", "voc": "the PASCAL VOC format", "csv": "as CSV"}
    assert f"there: holds no train.json, but annotations {'' if kind == 'csv' else 'in '}{names[kind]}" in run.err
    assert "python -m retinanet.convert there --output_path data" in run.err


def test_images_without_annotations_are_for_predict(script, coco_path):
    folder = coco_path / "images"

    for path in (folder, folder / "train" / "1.png"):
        run = script("train", "--coco_path", path, "--weights", "none")
        assert run.code == 2
        assert f"python -m retinanet.predict {path}" in run.err


def test_a_json_file_instead_of_a_folder(script, coco_path):
    run = script("train", "--coco_path", coco_path / "train.json", "--weights", "none")

    assert run.code == 2
    assert f"python -m retinanet.convert {coco_path / 'train.json'} --split 0.8 0.2 --output_path data" in run.err
    assert json.loads((coco_path / "train.json").read_text())

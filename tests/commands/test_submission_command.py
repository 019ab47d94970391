"""test_submission.py has the right exit codes, and writes what it should and nothing else."""

import json
import os
import zipfile

import pytest
from support.result_rows import SET, row

GOOD = [row(1 + i % 3, 1 + i % 2, (40 + i, 40, 20, 30)) for i in range(12)]
CORNERS = [{**one, "bbox": [40 + i, 40, 60 + i, 70]} for i, one in enumerate(GOOD)]
TOO_LOW = [{**one, "category_id": one["category_id"] - 2} for one in CORNERS]
AS_CORNERS = ("--fix", "out.json", "--boxes", "corners")
ELSEWHERE = [*GOOD, row(9)]
NAME = "detections_val2017_mine_results"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the sets val and val2017."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("val", "val2017"):
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(SET))
    return tmp_path


@pytest.fixture
def submit(script, folder):
    def call(rows, *flags, set_name="val", path="rows.json"):
        if rows is not None:
            (folder / path).write_text(rows if isinstance(rows, str) else json.dumps(rows))
        before = (folder / path).read_bytes() if (folder / path).is_file() else None
        run = script("test_submission", "--set_name", set_name, "--results_path", path, *flags)
        assert before is None or (folder / path).read_bytes() == before
        assert not [part for part in folder.glob("*.part") if part.name != path]
        return run

    return call


def in_zip(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        return name, json.loads(archive.read(name))


@pytest.mark.parametrize(
    ("rows", "flags", "code", "words", "written"),
    [
        (GOOD, ("--fix", "out.json"), 0, ["Nothing corrected", "out.json: good; 12 detections"], {"out.json"}),
        (GOOD, ("--zip", "a.zip"), 0, ["a.zip: written, with a.json in it"], {"a.zip"}),
        (CORNERS, (), 1, ["bbox written as (x1, y1, x2, y2): 12"], set()),
        (CORNERS, ("--zip", "a.zip"), 1, ["a.zip: not written, since there are findings"], set()),
        (
            CORNERS,
            ("--fix", "out.json"),
            1,
            [
                "out.json: not written, since",
                "- bbox written as",
                "\n    --boxes corners\n",
                "repeat --fix out.json with",
            ],
            set(),
        ),
        (CORNERS, ("--fix", "out.json", "--zip", "a.zip"), 1, ["a.zip: not written"], set()),
        (CORNERS, (*AS_CORNERS, "--zip", "a.zip"), 0, ["12 of 12", "a.zip: written"], {"out.json", "a.zip"}),
        (TOO_LOW, AS_CORNERS, 1, ["out.json: not written, since", "- category_id not in the set: 12"], set()),
        (TOO_LOW, (*AS_CORNERS, "--category_offset", "2"), 0, ["out.json: good; 12 detections"], {"out.json"}),
        (CORNERS, ("--boxes", "corners"), 2, ["--boxes only applies to --fix"], set()),
        (CORNERS, ("--category_offset", "-1"), 2, ["--category_offset only applies to --fix"], set()),
        (ELSEWHERE, ("--fix", "o.json"), 1, ["Fix these yourself:\n- image_id not in", "o.json: 1 fi"], {"o.json"}),
        (ELSEWHERE, ("--fix", "o.json", "--zip", "a.zip"), 1, ["a.zip: not written"], {"o.json"}),
        ([row(bbox=(200, 1, 5, 5))], ("--zip", "a.zip"), 1, ["bbox outside", "a.zip: not written"], set()),
        ([row(score=50), row(2, score=70)], ("--fix", "o.json"), 1, ["o.json: not written", "Export the"], set()),
        ([row(bbox=(1, 1, 0, 0))], ("--fix", "o.json"), 1, ["no row would be left", "o.json: not written"], set()),
        ([], ("--zip", "a.zip"), 1, ["rows.json: good", "a.zip: not written, since COCO's reader fails"], set()),
        ("{}", ("--fix", "out.json", "--zip", "a.zip"), 1, ["out.json: not written, since", "a.zip: not wri"], set()),
        ("[{", ("--fix", "out.json", "--zip", "a.zip"), 2, ["not valid JSON"], set()),
        (None, ("--fix", "out.json"), 2, ["rows.json: no such file"], set()),
        (
            GOOD,
            ("--fix", "none/out.json"),
            2,
            ["--fix none/out.json: is a folder, or its parent folder does not exist"],
            set(),
        ),
        (GOOD, ("--fix", "data"), 2, ["--fix data: the name must end in .json"], set()),
        (GOOD, ("--fix", "out.zip"), 2, ["the name must end in .json"], set()),
        (GOOD, ("--fix", "out.json", "--zip", "a.json"), 2, ["--zip a.json: the name must end in .zip"], set()),
        (GOOD, ("--fix", "rows.json"), 2, ["--fix rows.json: would replace rows.json, which is an input"], set()),
        (GOOD, ("--fix", "data/../rows.json"), 2, ["would replace rows.json"], set()),
        (GOOD, ("--fix", "data/val.json"), 2, ["would replace data/val.json"], set()),
    ],
)
def test_exit_codes_and_what_is_written(submit, folder, rows, flags, code, words, written):
    run = submit(rows, "--coco_path", "data", *flags)
    assert run.code == code
    assert all(word in run.out + run.err for word in words)
    assert {name for name in os.listdir(folder) if name not in ("data", "rows.json")} == written
    assert json.loads((folder / "data" / "val.json").read_text()) == SET
    if code == 0 and "out.json" in written:
        assert json.loads((folder / "out.json").read_text()) == GOOD
    if "a.zip" in written:
        assert in_zip(folder / "a.zip") == ("a.json", GOOD)


SQUARE = (10.5, 20.25, 30.125, 40.0625)
LARGE = (1.5, 1.5, 95, 77)


def objects(*boxes, category_ids=(1, 2)):
    """One for each image and box, in other places of each image: the same ones everywhere count as fake."""
    places = [(image_id, [box[0] + image_id, *box[1:]]) for image_id in (1, 2, 3) for box in boxes]
    return [
        {"id": i, "image_id": image_id, "category_id": category_ids[i % 2], "bbox": box, "area": 900, "iscrowd": 0}
        for i, (image_id, box) in enumerate(places, start=1)
    ]


def found(these, **changes):
    return [
        {**row(one["image_id"], one["category_id"], one["bbox"], 0.9 - i / 128), **changes}
        for i, one in enumerate(these)
    ]


def shifted(rows, pixels):
    return [{**one, "bbox": [number + pixels for number in one["bbox"]]} for one in rows]


CORRECT = {
    "one row of a background class": (objects(SQUARE), [row(category_id=0)], 1, "    --category_offset 1: AP 0."),
    "large boxes that nobody clipped": (
        objects(LARGE),
        [one for step in range(1, 5) for one in shifted(found(objects(LARGE), score=0.5), step)],
        0,
        "    --boxes corners: AP 0.",
    ),
    "a hundred of each class": (
        objects(SQUARE),
        [row(1, 1 + i % 2, (i / 4, 30, 9, 9), 0.95) for i in range(190)],
        0,
        "Nothing corrected",
    ),
    "two objects in one place": (objects(SQUARE, SQUARE, category_ids=(1, 1)), [], 1, "- duplicates: the same"),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_file_is_not_damaged(submit, folder, name):
    these, more, code, words = CORRECT[name]
    (folder / "data" / "val.json").write_text(json.dumps({**SET, "annotations": these}))
    rows = found(these) + more
    run = submit(rows, "--fix", "out.json")
    assert (run.code, words in run.out) == (code, True)
    assert json.loads((folder / "out.json").read_text()) == rows


def test_the_ap_of_each_reading_is_reported(submit, folder):
    these = objects((40, 40, 30, 30), (45, 42, 30, 30), (55, 45, 25, 30), (60, 40, 35, 35))
    (folder / "data" / "val.json").write_text(json.dumps({**SET, "annotations": these}))
    rows = found(these)
    corners = [
        {**one, "bbox": [*one["bbox"][:2], *(one["bbox"][i] + one["bbox"][i + 2] for i in (0, 1))]} for one in rows
    ]
    wrong = [{**one, "category_id": one["category_id"] - 1} for one in corners]
    run = submit(wrong, "--fix", "out.json")
    assert run.code == 1
    for reading, ap in (("as given", "0.000"), ("--category_offset 1", "0.000"), ("--boxes corners", "0.")):
        assert f"    {reading}: AP {ap}" in run.out
    assert "    --boxes corners --category_offset 1: AP 1.000\n" in run.out
    assert not (folder / "out.json").exists()
    assert submit(wrong, "--fix", "out.json", "--boxes", "corners", "--category_offset", 1).code == 0
    assert json.loads((folder / "out.json").read_text()) == rows


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("flag", ["--fix", "--zip"])
def test_a_link_to_the_input_is_refused(submit, folder, link, flag):
    (folder / "rows.json").write_text(json.dumps(CORNERS))
    out = folder / ("out.json" if flag == "--fix" else "out.zip")
    link(folder / "rows.json", out)
    run = submit(None, flag, out)
    assert (run.code, "would replace rows.json" in run.err) == (2, True)
    assert os.path.samefile(out, folder / "rows.json")


def test_the_input_may_be_called_like_an_unfinished_file(submit, folder):
    assert submit(GOOD, "--fix", "other.json", path="other.json.part").code == 0
    assert json.loads((folder / "other.json").read_text()) == GOOD
    assert (folder / "other.json.part").exists()


def test_a_zip_that_can_not_be_written(submit, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (folder / "a.zip").write_bytes(b"before")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    run = submit(GOOD, "--zip", "a.zip")
    assert (run.code, "a.zip: can't be written (No space left" in run.err) == (2, True)
    assert (folder / "a.zip").read_bytes() == b"before"


def test_fixed_again_is_the_same_file(submit, folder):
    copied = row(1, 1, (1, 2, 3 + 1 / 7, 4), 1 / 7)
    mixed = [*GOOD, copied, {**copied, "\ud800": 5}, row(score=float("nan"))]
    assert submit(mixed, "--fix", "once.json").code == 0
    assert submit(None, "--fix", "twice.json", path="once.json").code == 0
    assert (folder / "once.json").read_bytes() == (folder / "twice.json").read_bytes()


def test_packed_read_and_packed_again(submit, folder):
    assert submit(CORNERS, *AS_CORNERS, "--zip", "a.zip").code == 0
    run = submit(None, path="a.zip")
    assert (run.code, "a.zip: good; 12 detections" in run.out) == (0, True)
    assert submit(None, "--fix", "b.json", path="a.zip").code == 0
    assert (folder / "b.json").read_bytes() == (folder / "out.json").read_bytes()
    (folder / "more").mkdir()
    assert submit(None, "--zip", "more/a.zip", path="a.zip").code == 0
    assert (folder / "more" / "a.zip").read_bytes() == (folder / "a.zip").read_bytes()
    assert submit(None, "--zip", "a.zip", path="a.zip").code == 2


def test_a_broken_zip(submit, folder):
    (folder / "a.zip").write_bytes(b"PK\3\4")
    run = submit(None, "--fix", "b.json", path="a.zip")
    assert (run.code, "a.zip: not a zip with a result file in it" in run.err) == (2, True)
    assert not (folder / "b.json").exists()


@pytest.mark.parametrize(
    ("path", "flags", "code", "written"),
    [
        (f"{NAME}.json", (), 0, set()),
        ("val2017_bbox_results.json", (), 0, set()),
        ("rows.json", ("--fix", "out.json"), 0, {"out.json"}),
        ("rows.json", ("--fix", f"{NAME}.json"), 0, {f"{NAME}.json"}),
        ("rows.json", ("--zip", f"{NAME}.zip"), 0, {f"{NAME}.zip"}),
        ("rows.json", ("--fix", "out.json", "--zip", f"{NAME}.zip"), 0, {"out.json", f"{NAME}.zip"}),
        (f"{NAME}.json", ("--zip", "a.zip"), 1, set()),
    ],
)
def test_names_for_the_server(submit, folder, path, flags, code, written):
    run = submit(GOOD, *flags, set_name="val2017", path=path)
    assert run.code == code
    assert ("file name that COCO's evaluation server doesn't accept: 1" in run.out) == bool(code)
    assert {name for name in os.listdir(folder) if name not in ("data", path)} == written


def test_the_name_in_the_zip_counts_too(submit, folder):
    with zipfile.ZipFile(folder / f"{NAME}.zip", "w") as archive:
        archive.writestr("rows.json", json.dumps(GOOD))
    run = submit(None, set_name="val2017", path=f"{NAME}.zip")
    assert (run.code, f"{NAME}.zip holds rows.json, not {NAME}.json" in run.out) == (1, True)
    (folder / "again").mkdir()
    run = submit(None, "--zip", f"again/{NAME}.zip", set_name="val2017", path=f"{NAME}.zip")
    assert (run.code, in_zip(folder / "again" / f"{NAME}.zip")) == (0, (f"{NAME}.json", GOOD))


def test_vis_reads_the_zip_as_well(script, coco_path, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.json", json.dumps([row(1, 1, (1, 1, 20, 20), 0.9)]))
    picture = tmp_path / "vis.png"
    arguments = ("--coco_path", coco_path, "--pred_file", tmp_path / "a.zip", "--picture_path", picture)
    assert script("vis", "--image_id", 1, *arguments).code == 0
    assert picture.exists()

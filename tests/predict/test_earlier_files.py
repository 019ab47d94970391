"""A second predict into a folder: the first one's files are moved, and no others."""

import json
import re
from pathlib import Path

import pytest
from support.checkpoint_files import random_checkpoint

from retinanet.predict.earlier_files import earlier_files, move_earlier_files
from retinanet.runtime.errors import UserError

PREDICT = "retinanet/predict/__main__"
pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def predict(script, coco_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = random_checkpoint(tmp_path / "best.pt")
    how = ("--checkpoint_path", checkpoint, "--device", "cpu", "--threshold", 0.05)

    def call(*words):
        return script(PREDICT, *how, *words)

    return call


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(folder: Path, *names: str) -> dict[str, bytes]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return {name: (folder / name).read_bytes() for name in names}


def test_an_earlier_runs_files_are_moved_and_no_others(predict, coco_path):
    images, folder = coco_path / "images" / "val", Path("predictions")
    runs = []
    mine = put(folder, "notes.txt", "pictures/mine.png", "crops/red/old.png", "before.txt")
    for number, words in enumerate((("--save", "pictures", "crops"), ("--save", "pictures"), ("--save",))):
        run = predict(images, *words)
        assert (run.code, run.err) == (0, "")
        earlier = f"predictions holds an earlier run: {len(runs[-1]) - 1 if runs else 0} files moved to"
        assert (f"{earlier} predictions/before_{number}" in run.out) == (number > 0)
        there = {name: content for name, content in files_in(folder).items() if not name.startswith("before_")}
        assert {name: content for name, content in there.items() if name in mine} == mine
        runs.append({name: content for name, content in there.items() if name not in mine})
        for earlier_number in range(number):
            assert files_in(folder / f"before_{earlier_number + 1}") == runs[earlier_number]
    assert [{name.split("/")[0] for name in run} for run in runs] == [
        {"predictions.json", "predictions.csv", "predicted_files.jsonl", *more}
        for more in (("pictures", "crops"), ("pictures",), ())
    ]
    assert {path.name for path in (folder / "crops").iterdir()} == {"red"}  # where a file of the user's is


def test_folders_without_files_go(predict, coco_path):
    assert predict(coco_path / "images" / "val").code == 0
    assert predict(coco_path / "images" / "val", "--save").code == 0
    assert not Path("predictions/pictures").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("nowhere.png",),
        ("IMAGE", "--checkpoint_path", "nowhere.pt"),
        ("IMAGE", "--classes", "horse"),
        ("IMAGE", "--threshold", 2),
        ("predictions/pictures/1.png",),
        ("predictions/pictures",),
        ("predictions/pict*/*",),
    ],
)
def test_a_mistake_moves_nothing(predict, coco_path, words):
    image = coco_path / "images" / "val" / "1.png"
    assert predict(image).code == 0
    before = files_in(Path("predictions"))
    run = predict(*(image if word == "IMAGE" else word for word in words))
    assert (run.code, run.out) == (2, "")
    assert run.err.count("\n") == 1
    assert ("1.png: is a SOURCE" in run.err) == ("pict" in str(words[0]))
    assert files_in(Path("predictions")) == before


def test_the_same_glob_twice(predict, coco_path):
    for number in range(3):
        run = predict("data/images/val/*", "**/1.png", "--save", "pictures")
        assert (run.code, run.err) == (0, "")
        assert len(list(Path("predictions/pictures").iterdir())) == 5 + 2  # val/1.png is one file
        assert Path(f"predictions/before_{number}").exists() == (number > 0)


def test_an_earlier_versions_folder_has_no_record(predict, coco_path):
    folder = Path("predictions")
    rows = put(folder, "predictions.json", "predictions.csv")
    uncertain = put(folder, "pictures/1.png", "pictures/holiday.png", "predictions.txt")
    run = predict(coco_path / "images" / "val" / "1.png")
    assert run.code == 0
    assert re.search(r": 2 files moved to predictions/before_1 \(\d+\.\d kB\)", run.out)
    assert files_in(folder / "before_1") == rows
    there = files_in(folder)
    assert {name: there[name] for name in uncertain} == uncertain
    assert "pictures/1_2.png" in there


def test_a_killed_run_and_a_record_that_lies(tmp_path):
    folder = tmp_path / "predictions"
    mine = put(tmp_path, "secret.txt", "predictions/pictures/2.png")
    put(folder, "pictures/1.png")
    names = ["predictions.json", "pictures/1.png", "../secret.txt", str(tmp_path / "secret.txt"), "pictures", "", 7]
    lines = [*map(json.dumps, names), '"pictures/2.pn']  # where a power cut ended it
    (folder / "predicted_files.jsonl").write_text("\n".join(lines))
    earlier = earlier_files(folder)
    assert earlier == [folder / "pictures" / "1.png"]
    move_earlier_files(folder, earlier)
    assert {name: content for name, content in files_in(tmp_path).items() if name in mine} == mine
    assert set(files_in(folder / "before_1")) == {"pictures/1.png", "predicted_files.jsonl"}
    assert earlier_files(folder) == []


def test_files_that_can_not_be_moved_all_stay(tmp_path, monkeypatch):
    folder = tmp_path / "predictions"
    before = put(folder, "predictions.json", "pictures/a.png", "pictures/b.png", "predicted_files.jsonl")
    rename = Path.rename

    def failing(path, place):
        if path.name == "predictions.json":
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", failing)
    earlier = [folder / name for name in sorted(before) if name != "predicted_files.jsonl"]
    with pytest.raises(
        UserError, match=r"predictions: an earlier run's files can't be moved \(Operation not permitted"
    ):
        move_earlier_files(folder, earlier)
    assert files_in(folder) == before
    assert {path.name for path in folder.iterdir()} == {"predictions.json", "pictures", "predicted_files.jsonl"}


def test_the_rows_are_an_earlier_runs_whatever_is_left_of_its_record(tmp_path):
    put(tmp_path, "predictions.json", "notes.txt", "predicted_files.jsonl")
    (tmp_path / "predicted_files.jsonl").write_text("")  # by a power cut
    assert earlier_files(tmp_path) == [tmp_path / "predictions.json"]


def test_the_record_is_moved_last(tmp_path, monkeypatch):
    """After a power cut on the way the next run finds the rest by it."""
    put(tmp_path, "predictions.json", "pictures/a.png", "predicted_files.jsonl")
    rename, moved = Path.rename, []
    monkeypatch.setattr(Path, "rename", lambda path, place: moved.append(path.name) or rename(path, place))
    move_earlier_files(tmp_path, [tmp_path / "pictures" / "a.png", tmp_path / "predictions.json"])
    assert moved == ["a.png", "predictions.json", "predicted_files.jsonl"]

"""test.py writes its report and comparison as a user requests them."""

import json
import re
import shutil

import numpy as np
import pytest
from support.data_folder import change_json, write_set

pytestmark = pytest.mark.usefixtures("narrow_network")

FLAGS = (
    *("--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64, "--max_side", 64, "--batch_size", 3),
    *("--epochs", 1, "--learning_rate", 0.001, "--log_dir", "log"),
)


def rows_of(path, *, without=None, shift=0.0):
    """The set's objects as detections, moved and without a category."""
    annotations = json.loads(path.read_text())["annotations"]
    return [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": [one["bbox"][0] + shift * one["bbox"][2], *one["bbox"][1:]],
            "score": 0.9 - number / 100,
        }
        for number, one in enumerate(annotations)
        if one["category_id"] != without
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, count in (("train", 6), ("val", 9)):
        write_set(tmp_path / "data", name, count)
    val = tmp_path / "data" / "val.json"
    (tmp_path / "good.json").write_text(json.dumps(rows_of(val)))
    (tmp_path / "lacking.json").write_text(json.dumps(rows_of(val, without=1)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_report_and_curves(script, folder):
    assert script("train", *FLAGS).code == 0
    run = script("test", "--set_name", "val", "--report", "out/report", "--num_draws", 40, "--log_dir", "log")
    assert run.code == 0
    lines = run.out.splitlines()
    first = next(place for place, line in enumerate(lines) if "IoU=0.50:0.95" in line)
    assert all("@[ IoU=" in line for line in lines[first : first + 12])
    assert re.match(r"AP 0\.\d{3} \(.* to .*\), AP50 .* from 40 bootstrap draws of the 9 images$", lines[first + 12])
    assert lines[first + 13].split()[:2] == ["Class", "Objects"]
    assert lines[-1] == "Report: out/report/report.html"
    metrics = json.loads((folder / "out" / "report" / "metrics.json").read_text())
    assert metrics["results"] == "val_bbox_results.json"
    assert "<html" in (folder / "out" / "report" / "report.html").read_text()
    # What it says more does not stand in the way of reading the log.
    table = script("vis", "--logs", *sorted(folder.glob("log/*.log")))
    assert table.code == 0
    assert len([line for line in table.out.splitlines() if line.startswith("| ")]) == 2 + 2
    without = script("test", "--set_name", "val", "--num_draws", 0)
    assert "draws" not in without.out
    assert "nan" not in without.out


def test_compare(script, folder):
    run = script("test", "--compare", "good.json", "lacking.json", "--num_draws", 50)
    assert run.code == 0
    lost = next(line for line in run.out.splitlines() if line.startswith("AP of red"))
    assert lost.split()[3:6] == ["1.000", "0.000", "-1.000"]
    assert next(line for line in run.out.splitlines() if line.startswith("AP of green")).split()[5] == "+0.000"
    assert (folder / "compare.png").stat().st_size > 10_000
    again = script("test", "--compare", "good.json", "good.json", "--report", "deep/er")
    assert again.code == 0
    assert "A and B do equally well on every image" in again.out
    assert [path.name for path in folder.glob("deep/er/*")] == ["report.html"]
    other = script("test", "--compare", "lacking.json", "good.json", "--report", "deep/er")
    assert other.code == 0
    assert (folder / "deep" / "er" / "compare.png").exists()
    assert other.out.splitlines()[-1] == "Report: deep/er/report.html"
    page = (folder / "deep" / "er" / "report.html").read_text()
    assert '"source":"lacking.json"' in page
    assert '"source":"good.json"' in page
    assert "AP of B - A: +0.5" in page


def test_a_comparison_on_few_images_has_no_intervals(script, folder):
    change_json(folder / "data" / "val.json", lambda content: content | {"annotations": content["annotations"][:4]})
    run = script("test", "--compare", "good.json", "lacking.json", "--report", "report", "--json", "n.json")
    assert run.code == 0, run.err
    row = next(line for line in run.out.splitlines() if line.startswith("AP  "))
    assert row.split()[-1] == "-"
    assert "%" not in run.out
    numbers = json.loads((folder / "n.json").read_text())
    first = numbers["differences"][0]
    assert (numbers["num_draws"], first["difference"]["low"], first["wins"]) == (0, None, None)


def test_result_files_need_only_the_annotations(script, folder):
    report = ("--report", "report", "--num_draws", 0)
    with_images = script("test", "--from_results", "lacking.json", *report)
    assert with_images.code == 0
    assert (folder / "report" / "worst_missed.jpg").exists()
    assert "ictures" not in with_images.out
    (folder / "data" / "images").rename(folder / "elsewhere")
    for number, words in enumerate((("--from_results", "lacking.json"), ("--compare", "good.json", "lacking.json"))):
        run = script("test", *words, *report)
        assert (run.code, run.err) == (0, "")
        assert ("Average Precision" in run.out) == (number == 0)
        assert run.out.count("No pictures, as the images of data/val.json are not in data/images/val") == 1
    assert "won or lost" not in run.out
    names = {path.name for path in (folder / "report").iterdir()}
    assert {"report.html", "metrics.json", "classes.png"} <= names
    assert not {"worst_missed.jpg", "compare.png"} & names
    assert "No pictures" not in script("test", "--from_results", "good.json", "--num_draws", 0).out


def test_pictures_leave_out_images_that_are_not_there(script, folder):
    images = [one["image_id"] for one in json.loads((folder / "data/val.json").read_text())["annotations"]]
    lost = [one["image_id"] for one in rows_of(folder / "data/val.json") if one["category_id"] == 1]
    assert len(lost) > 2
    for image in (lost[0], lost[-1]):  # of the missed, and of the lost, these would come first
        (folder / "data" / "images" / "val" / f"{image}.png").unlink()
    for words in (("--from_results", "lacking.json"), ("--compare", "good.json", "lacking.json")):
        run = script("test", *words, "--report", "report", "--num_draws", 0)
        assert (run.code, run.err) == (0, "")
        assert run.out.count(f"leave out 2 of {len(images) + 1} images, which are not in data/images/val") == 1
    assert (folder / "report" / "worst_missed.jpg").exists()
    assert (folder / "report" / "compare.png").exists()


def test_one_box_in_all_images_is_a_set_like_any_other(script, folder):
    def in_one_place(content):
        for annotation in content["annotations"]:
            annotation.update(bbox=[4, 4, 30, 30], area=900)

    change_json(folder / "data" / "val.json", in_one_place)
    (folder / "one.json").write_text(json.dumps(rows_of(folder / "data" / "val.json")))
    run = script("test", "--from_results", "one.json", "--num_draws", 0)
    assert run.code == 0
    assert "placeholder" not in run.out
    assert "= 1.000" in run.out
    assert script("train", *FLAGS, "--patience", 1, "--eval_every", 1).code == 0


def test_vis_draws_above_the_score_that_test_prints(script, folder, monkeypatch):
    """Typed back, it keeps what the row of the best F1 counts."""
    rows = rows_of(folder / "data" / "val.json")
    for number, row in enumerate(rows):
        row["score"] = float(np.float32(0.2 - number / 1000))  # below the usual threshold
    nothing = [{**rows[0], "bbox": [0, 0, 1, 1], "score": float(np.float32(score))} for score in (0.1, 0.1, 0.05)]
    (folder / "low.json").write_text(json.dumps([*rows, *nothing]))
    titles = []
    monkeypatch.setattr("retinanet.commands.draw.draw_grid", lambda panels, *_, **__: titles.append(panels[1].title))
    monkeypatch.setattr("retinanet.commands.draw.save_figure", lambda *_: None)
    run = script("test", "--set_name", "val", "--from_results", "low.json", "--num_draws", 0)
    typed = re.search(r"^Best F1 of all classes: 1\.000 above score (\S+), with", run.out, re.MULTILINE)[1]
    image = ("--set_name", "val", "--image_id", rows[-1]["image_id"])
    for threshold in ((), ("--threshold", typed)):
        assert script("vis", *image, "--pred_file", "low.json", *threshold).code == 0
        assert titles.pop() == f"Detections: 1 above score {typed}"
    assert script("vis", *image, "--pred_file", "low.json", "--threshold", rows[-1]["score"]).code == 0
    assert titles.pop().startswith("Detections: 0 above score 0.19")


@pytest.mark.parametrize("kind", ["no objects", "no hits"])
def test_vis_draws_above_the_usual_score_where_there_is_no_best(script, folder, monkeypatch, kind):
    path = folder / "data" / "val.json"
    content = json.loads(path.read_text())
    image_id = content["images"][0]["id"]
    rows = [
        {"image_id": image_id, "category_id": content["categories"][0]["id"], "bbox": [0, 0, 1, 1], "score": score}
        for score in (0.2, 0.4)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    if kind == "no objects":
        path.write_text(json.dumps({**content, "annotations": []}))
    titles = []
    monkeypatch.setattr("retinanet.commands.draw.draw_grid", lambda panels, *_, **__: titles.append(panels[1].title))
    monkeypatch.setattr("retinanet.commands.draw.save_figure", lambda *_: None)
    assert script("vis", "--image_id", image_id, "--pred_file", "rows.json").code == 0
    assert titles == ["Detections: 1 above score 0.3"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--compare", "good.json", "missing.json"), "missing.json: no such file"),
        (("--compare", "good.json", "data/val.json"), "an annotation file, not a result file"),
        (("--compare", "good.json", "good.json", "--set_name", "train"), "image_id not in the set"),
        (("--compare", "good.json", "good.json", "--set_name", "bare"), "has no objects, so results can't be compared"),
        (
            ("--compare", "good.json", "good.json", "--log_dir", "log"),
            "--log_dir only applies to detection. Remove it, or --compare",
        ),
        (
            ("--compare", "good.json", "lacking.json", "--report", "good.json"),
            "good.json is not a writable folder",
        ),
        (("--compare", "good.json"), "expected 2 arguments"),
        (("--from_results", "missing.json"), "missing.json: no such file"),
        (("--from_results", "data/val.json"), "an annotation file, not a result file"),
        (("--from_results", "good.json", "--set_name", "train"), "image_id not in the set"),
        (("--from_results", "good.json", "--coco_path", "none"), "none: no such data folder"),
        (("--from_results", "good.json", "--report", "good.json"), "good.json is not a writable folder"),
        (("--from_results", "good.json", "--compare", "good.json", "good.json"), "--from_results evaluates one result"),
        (
            ("--from_results", "good.json", "--checkpoint_path", "a.pt"),
            "only applies to detection. Remove it, or --from_results",
        ),
        (("--from_results", "good.json", "--results_path", "b.json"), "--results_path only applies to detection"),
        (("--from_results", "good.json", "--threshold", 0.3), "--threshold only applies to detection"),
        (("--compare", "good.json", "lacking.json", "--threshold", 0.3), "--threshold only applies to detection"),
        (("--from_results", "good.json", "--device", "cuda:3"), "--device only applies to detection"),
        (("--compare", "good.json", "lacking.json", "--precision", "float16"), "--precision only applies to detection"),
        (("--compare", "good.json", "lacking.json", "--num_draws", 3), "--num_draws 3 is too few for an interval"),
        (
            ("--set_name", "val", "--from_results", "good.json", "--report", "good.json/below"),
            "good.json is not a writable",
        ),
    ],
)
def test_mistakes(script, folder, flags, words):
    shutil.copytree("data/images/val", "data/images/bare")
    content = json.loads((folder / "data" / "val.json").read_text())
    (folder / "data" / "bare.json").write_text(json.dumps({**content, "annotations": []}))
    before = sorted(folder.rglob("*.png"))
    run = script("test", *flags)
    assert run.code == 2
    assert words in run.err
    assert run.out == ""
    assert sorted(folder.rglob("*.png")) == before


def test_a_picture_that_can_not_be_read_costs_no_report(script, folder):
    for path in (folder / "data" / "images" / "val").iterdir():
        path.write_bytes(b"no image")
    run = script("test", "--compare", "lacking.json", "good.json", "--report", "out")
    assert run.code == 0
    assert (folder / "out" / "report.html").exists()


def test_compare_png_can_not_be_written(script, folder):
    (folder / "compare.png").mkdir()
    run = script("test", "--compare", "good.json", "lacking.json")
    assert run.code == 2
    assert "compare.png" in run.err

"""The default path works by itself: what test.py writes is what vis.py and the next test.py find."""

import json

import pytest
import torch
from PIL import Image
from support.built import small_network
from support.data_folder import change_json

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def in_data(coco_path, tmp_path, monkeypatch):
    """In a folder with data/ and output/model_final.pt, a network that finds something everywhere."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = small_network()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    (tmp_path / "output").mkdir()
    weights = Checkpoint(model.state_dict(), model.architecture, ["red", "green"], [1, 2], 64, 96, 4, 1, {})
    save_checkpoint(weights, tmp_path / "output" / "model_final.pt")
    return tmp_path


TEST = ("--device", "cpu", "--workers", 0, "--threshold", 0, "--num_draws", 0)


def test_after_testing_the_pictures_are_of_the_tested_set(script, in_data):
    nothing = script("vis", "--vis_pred")
    assert nothing.code == 2
    assert "there is no val_bbox_results.json here. Write it with python test.py --set_name val" in nothing.err
    assert script("test", *TEST).code == 0
    run = script("vis", "--vis_pred", "--num_images", 2)
    assert run.code == 0, run.err
    assert "Detections of the set test: test_bbox_results.json" in run.out
    assert script("test", *TEST, "--set_name", "val").code == 0
    assert "Detections of the set val: val_" in script("vis", "--vis_pred").out
    assert "Detections of the set test: test_" in script("vis", "--pred_file", "test_bbox_results.json").out


def test_an_older_result_file_is_kept_unless_it_is_the_same(script, in_data):
    assert script("test", *TEST).code == 0
    first = (in_data / "test_bbox_results.json").read_bytes()
    again = script("test", *TEST)
    assert "already existed" not in again.out
    other = script("test", *TEST, "--max_detections", 1)
    size = f"{len(first) / 1e3:.1f} kB"
    assert f"the older file is now test_bbox_results.before_1.json ({size})" in other.out
    assert (in_data / "test_bbox_results.before_1.json").read_bytes() == first
    assert (in_data / "test_bbox_results.json").read_bytes() != first


def test_a_result_file_of_another_set_is_named(script, in_data):
    def moved(content):
        for one in (*content["images"], *content["annotations"]):
            one["id" if "file_name" in one else "image_id"] += 100

    change_json(in_data / "data" / "val.json", moved)
    assert script("test", *TEST, "--set_name", "val", "--results_path", "results.json").code == 0
    run = script("vis", "--set_name", "test", "--pred_file", "results.json")
    assert run.code == 2
    assert "Its images and categories belong to the set val: use --set_name val." in run.err


def test_a_result_file_belongs_to_the_set_in_its_record(script, in_data):
    assert script("test", *TEST, "--results_path", "rows.json").code == 0
    (in_data / "bare.json").write_text("[]")
    for words in (("--from_results", "rows.json"), ("--compare", "bare.json", "rows.json")):
        for more, name in (((), "test"), (("--set_name", "val"), "val")):
            run = script("test", *words, *more, "--num_draws", 0, "--json", "numbers.json")
            assert run.code == 0, run.err
            assert json.loads((in_data / "numbers.json").read_text())["annotations"] == f"data/{name}.json"
            warning = "rows.json: was made for data/test.json as it was then, not for data/val.json as it is now"
            assert (warning in run.err, run.err.count("\n")) == ((True, 1) if more else (False, 0))
    assert "Detections of the set test: rows.json" in script("vis", "--pred_file", "rows.json").out
    assert "not for data/val.json" in script("vis", "--pred_file", "rows.json", "--set_name", "val").err
    (in_data / "rows.run.json").unlink()
    run = script("test", "--from_results", "rows.json", "--num_draws", 0)
    assert ("against data/val.json" in run.out, run.err) == (True, "")


def test_a_report_on_an_existing_file_needs_no_checkpoint(script, in_data):
    assert script("test", *TEST, "--set_name", "val").code == 0
    (in_data / "output" / "model_final.pt").unlink()
    before = (in_data / "val_bbox_results.json").read_bytes()
    results = ("--from_results", "val_bbox_results.json", "--report", "report", "--num_draws", 0)
    run = script("test", *results)
    assert run.code == 0, run.err
    assert "Evaluating val_bbox_results.json as it is, against data/val.json" in run.out
    assert "Average Precision" in run.out
    assert (in_data / "report" / "report.html").exists()
    assert (in_data / "val_bbox_results.json").read_bytes() == before


def test_results_path_is_always_the_file_to_write(script, in_data):
    results = ("--set_name", "val", "--results_path", "val_bbox_results.json")
    assert script("test", *TEST, *results).code == 0
    with_checkpoint = script("test", *TEST, *results, "--max_detections", 1)
    assert "the older file is now val_bbox_results.before_1.json" in with_checkpoint.out
    as_it_is = script("test", "--from_results", "val_bbox_results.before_1.json", "--num_draws", 0)
    assert (as_it_is.code, "written" in as_it_is.out) == (0, False)
    (in_data / "output" / "model_final.pt").unlink()
    before = {path: path.read_bytes() for path in in_data.glob("*.json")}
    run = script("test", *TEST, *results)
    assert (run.code, run.out) == (2, "")
    assert "--results_path val_bbox_results.json: names the file to write, but there is no checkpoint" in run.err
    assert "use --from_results val_bbox_results.json" in run.err
    lacking = script("test", *TEST, *results, "--checkpoint_path", "other.pt")
    assert (lacking.code, "other.pt" in lacking.err) == (2, True)
    assert {path: path.read_bytes() for path in in_data.glob("*.json")} == before


def test_a_picture_of_each_image_in_its_own_size(script, in_data):
    assert script("test", *TEST, "--set_name", "val").code == 0
    run = script("vis", "--vis_pred", "--num_images", 3, "--output_path", "pictures/of val", "--size", 300)
    assert run.code == 0, run.err
    assert "3 pictures in pictures/of val" in run.out
    pictures = sorted((in_data / "pictures" / "of val").iterdir())
    assert len(pictures) == 3
    with Image.open(pictures[0]) as picture:
        assert picture.width == pytest.approx(2 * 300, abs=2)  # objects and detections side by side
    rows = json.loads((in_data / "val_bbox_results.json").read_text())
    assert rows


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--output_path", "p", "--columns", 2), "--columns is for a single picture"),
        (("--output_path", "p", "--augmented"), "--augmented is for a single picture"),
        (("--logs", "x", "--size", 900), "--size is for pictures of images"),
        (("--size", 5), "a whole number from 100 to 10000"),
        (("--threshold", 0.5), "--threshold is for pictures of detections. Set --vis_pred or --pred_file"),
        (("--output_path", "data/images/val"), "--output_path data/images/val: is the image folder of the set"),
    ],
)
def test_contradictions(script, in_data, flags, words):
    before = {path: path.read_bytes() for path in in_data.rglob("*.png")}
    run = script("vis", *flags)
    assert (run.code, words in run.err) == (2, True), run.err
    assert {path: path.read_bytes() for path in in_data.rglob("*.png")} == before


def test_boxes_without_names_and_in_one_column(script, in_data):
    sizes = []
    for flags in ((), ("--columns", 1), ("--columns", 1, "--hide_names")):
        assert script("vis", "--num_images", 2, "--size", 240, *flags).code == 0
        with Image.open("vis.png") as picture:
            sizes.append(picture.size)
            last = picture.tobytes()
    assert sizes == [(480, 240), (240, 480), (240, 480)]
    assert script("vis", "--num_images", 2, "--size", 240, "--columns", 1).code == 0
    with Image.open("vis.png") as picture:
        assert picture.tobytes() != last

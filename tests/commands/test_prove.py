"""check_data --prove, as a user runs it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.data_folder import as_corners, change_json, in_fractions
from support.scripts import ROOT

from retinanet.check_data import proof

FLAGS = ("--sets", "train", "val", "--min_side", 64, "--max_side", 96, "--prove", "--weights", "none")


@pytest.fixture
def prove(script, coco_path, own_folder, narrow_network, monkeypatch):
    monkeypatch.setattr(proof, "NUM_STEPS", 2)
    return lambda *flags: script("retinanet/check_data/__main__", "--coco_path", coco_path, *FLAGS, *flags)


def all_crowds(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def out_of_reach(content):
    for annotation in content["annotations"]:
        annotation.update(bbox=[*annotation["bbox"][:2], 4, 4], area=16)


def identical_images(folder):
    for path in (folder / "images" / "train").glob("*.png"):
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)

    def squares(content):
        for image in content["images"]:
            image.update(width=64, height=64)
        for annotation in content["annotations"]:
            annotation.update(bbox=[2, 2, 50, 50 + annotation["id"] / 100])

    change_json(folder / "train.json", squares)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (as_corners, "box_as_corners"),
        (in_fractions, "box_in_fractions"),
        (all_crowds, "nothing_to_learn"),
        (out_of_reach, "nothing_reached"),
        (None, "same pixels"),
    ],
)
def test_a_finding_that_explains_everything_needs_no_training(prove, coco_path, break_it, says):
    if break_it:
        change_json(coco_path / "train.json", break_it)
    else:
        identical_images(coco_path)
    run = prove()
    assert run.code == 1, run.err
    assert "Proof:" not in run.out
    (cause,) = [line for line in run.out.splitlines() if line.startswith("Likely cause:")]
    assert says in cause


def test_one_readable_image_is_not_called_the_same_as_others(prove, coco_path):
    for path in sorted((coco_path / "images" / "train").iterdir())[1:]:
        path.write_bytes(path.read_bytes()[:-30])
    run = prove()
    (cause,) = [line for line in run.out.splitlines() if line.startswith("Likely cause:")]
    assert "image_damaged" in cause


def test_a_proof_says_what_is_found_and_writes_only_into_its_folder(prove, coco_path, tmp_path):
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    run = prove("--output_path", "evidence")
    assert run.code == 3, run.err
    assert "Will it learn? Can't tell in so short a run:" in run.out
    table = run.out.partition("AP50")[2].splitlines()[1:4]
    assert [line.split()[:2] for line in table] == [["of", "the"], ["unseen,", "of"], ["of", "val.json"]]
    written = {path for path in tmp_path.rglob("*") if "cache" not in path.parts} - before
    names = {str(path.relative_to(tmp_path)) for path in written}
    pictures = {"check_data.png", "classes.png", "detections.png"}
    assert names == {"evidence"} | {f"evidence/{name}" for name in pictures}


def test_the_seed_decides_everything(prove):
    tables = [prove("--seed", seed).out.partition("AP50")[2].partition("Crops")[0] for seed in (5, 5, 6)]
    assert tables[0] == tables[1] != tables[2]


def test_flags_of_the_proof_need_it(script, coco_path, own_folder):
    name = "retinanet/check_data/__main__"
    run = script(name, "--coco_path", coco_path, "--weights", "none")
    assert run.code == 2
    assert "--weights only applies to --prove" in run.err
    run = script(name, "--coco_path", coco_path, "--prove", "--no_pixels")
    assert run.code == 2
    assert "--no_pixels" in run.err
    run = script(name, "--coco_path", coco_path, "--prove", "--weights", "coco")
    assert run.code == 2
    assert "ResNet-18" in run.err


def test_weights_are_read_before_anything_is_written(script, coco_path, own_folder, tmp_path):
    flags = [word if word != "none" else "nowhere.pth" for word in FLAGS]
    run = script("retinanet/check_data/__main__", "--coco_path", coco_path, *flags)
    assert run.code == 2
    assert "--weights nowhere.pth: no such file" in run.err
    assert not (tmp_path / "prove").exists()


def test_too_few_images_are_refused(prove, coco_path):
    change_json(coco_path / "train.json", lambda content: content["annotations"].__delitem__(slice(2, None)))
    run = prove()
    assert run.code == 2
    assert "at least 4 images" in run.err


def test_a_signal_ends_a_proof_cleanly(coco_path, own_folder, tmp_path):
    command = [sys.executable, "-m", "retinanet.check_data", "--coco_path", coco_path, *FLAGS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("Proof:"):
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
    assert {path.name for path in (tmp_path / "prove").iterdir()} == {"check_data.png", "classes.png"}

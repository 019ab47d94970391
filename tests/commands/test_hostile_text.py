"""Names that carry escape sequences, line feeds and HTML through every command: nothing that is shown obeys them."""

import io
import json
import re
import sys

import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from support.data_folder import change_json, write_set
from support.scripts import TINY

from retinanet.reports.log_reader import POINT
from retinanet.reports.log_table import print_spread
from retinanet.runtime.console import say

pytestmark = pytest.mark.usefixtures("narrow_network")

FORGED = "Epoch: 77 | Iteration: 1 | Classification loss: 0.0 | Regression loss: 0.0 | Running loss: 0.0"
ATTACK = f"\x1b[2J\x9b31m\r\n{FORGED}\n\u202eevil\u2028<img src=x onerror=alert(1)>`\x07\t\x7f"
# A line feed is the suite's own; what matters is that no forged line stands behind one.
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_harmless(text):
    forged = [line for line in text.splitlines() if POINT.match(line) and line.startswith("Epoch: 77")]
    return not RAW.search(text) and not forged


@pytest.fixture
def shown_texts(monkeypatch):
    """The texts of all pictures that are drawn."""
    texts = []

    def take(figure):
        texts.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr("retinanet.reports.figures.give_fonts", take)
    monkeypatch.setattr("retinanet.reports.html_report.give_fonts", take)
    return texts


@pytest.fixture
def hostile(tmp_path):
    """A data folder in which every text is an attack, in a folder that is one."""
    folder = tmp_path / f"data{ATTACK}"
    for name, count in (("train", 4), ("val", 3)):
        write_set(folder, name, count)
        for file in (folder / "images" / name).glob("*.png"):
            file.rename(file.with_name(f"{file.stem}{ATTACK}.png"))

        def attack(content, name=name):
            content["info"] = content["licenses"] = {ATTACK: ATTACK}
            for label, category in enumerate(content["categories"]):
                category["name"] = category["supercategory"] = f"{label}{ATTACK}"
            for image in content["images"]:
                image["file_name"] = image["file_name"].replace(".png", f"{ATTACK}.png")

        change_json(folder / f"{name}.json", attack)
    return folder


def shown_by(*runs):
    return [text for one in runs for text in (one.out, one.err)]


def test_train_test_vis_and_submission(script, hostile, tmp_path, shown_texts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output, report, logs = tmp_path / f"out{ATTACK}", tmp_path / f"report{ATTACK}", tmp_path / f"logs{ATTACK}"
    data = ("--coco_path", hostile)
    train = script("train", *data, *TINY, "--epochs", 1, "--output_path", output, "--log_dir", logs)
    assert train.code == 0, train.err
    checkpoint = output / "model_final.pt"
    content = torch.load(checkpoint, weights_only=True)
    content["settings"] |= {ATTACK: ATTACK, "output_path": ATTACK}
    torch.save(content, checkpoint)
    val = (*data, "--set_name", "val")
    results = tmp_path / f"results{ATTACK}.json"
    tested = script(
        *(
            "test",
            *val,
            "--checkpoint_path",
            checkpoint,
            "--results_path",
            results,
            "--threshold",
            0,
            "--device",
            "cpu",
        ),
        *("--report", report, "--log_dir", logs, "--num_draws", 20),
    )
    assert tested.code == 0, tested.err
    runs = [
        script("vis", *val, "--pred_file", results, "--threshold", 0, "--num_images", 3),
        script("vis", *data, "--augmented", "--min_side", 64, "--max_side", 96),
        script("vis", "--logs", *logs.iterdir()),
        script("test_submission", *val, "--results_path", results),
        script("test", *val, "--compare", results, results, "--num_draws", 20),
    ]
    assert [(one.code, one.err) for one in runs] == [(0, "")] * 5
    page = (report / "report.html").read_text()
    assert "\\x1b[2J\\x9b31m\\r\\nEpoch: 77" in page
    assert "<img src=x" not in page
    told = [*shown_by(train, tested, *runs), page, *(log.read_text() for log in logs.iterdir())]
    assert [text for text in told if not is_harmless(text)] == []
    assert any("Epoch: 77" in text for text in shown_texts)
    assert [text for text in shown_texts if RAW.search(text) or "\nEpoch" in text] == []
    metrics = json.loads((report / "metrics.json").read_text())
    assert [one["name"] for one in metrics["classes"]] == [f"{label}{ATTACK}" for label in range(2)]
    record = json.loads((output / "run.json").read_text())
    assert record["class_names"] == [f"{label}{ATTACK}" for label in range(2)]


def test_check_data(script, hostile, tmp_path, shown_texts):
    (hostile / "images" / "train" / f"unlisted{ATTACK}.png").write_bytes(b"")
    # As a file system may have it: bytes that are no UTF-8.
    Image.new("RGB", (4, 4)).save(hostile / "images" / "train" / "unlisted\udcff.png")

    def damage(content):
        content["images"][0]["file_name"] = f"missing{ATTACK}.png"
        content["images"].append({"id": ATTACK, "file_name": "\ud800.png", "height": 4, "width": 4})
        content["images"].append({"id": 99, "file_name": "\ud800.png", "height": 4, "width": 4})
        content["annotations"][1]["image_id"] = ATTACK
        content["annotations"] += [{**content["annotations"][0], "id": f"{number}{ATTACK}\ud800"} for number in (1, 2)]
        content["categories"].append({"id": ATTACK, "name": ATTACK})
        content["categories"].append({"id": 7, "name": content["categories"][0]["name"]})

    change_json(hostile / "train.json", damage)
    picture = tmp_path / f"charts{ATTACK}.png"
    told = script("retinanet/check_data/__main__", "--coco_path", hostile, "--picture_path", picture, "--threads", 1)
    assert (told.code, told.err) == (1, "")
    for kind in ("image_missing", "file_name_malformed", "image_unlisted", "object_twice", "category_name_twice"):
        assert f": {kind}: " in told.out
    assert is_harmless(told.out)
    assert any("Epoch: 77" in text for text in shown_texts)
    assert [text for text in shown_texts if RAW.search(text) or "\nEpoch" in text] == []


BOX = {"category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{**BOX, "image_id": "\ud800", "bbox": [1, 1, 9, 9 + number]} for number in range(101)],
            "image_id not in the set: 101",
        ),
        ([{**BOX, "image_id": ATTACK, "bbox": [1, 1, 9, n]} for n in range(1, 102)], "image_id not in the set: 101"),
        ([{**BOX, "image_id": 1, "category_id": ATTACK}], "category_id not in the set"),
        ([{**BOX, "image_id": 1, "bbox": ATTACK, "score": ["\ud800"]}], "score not a number"),
        ([{**BOX, "image_id": 1, ATTACK: "\ud800"}, ATTACK], "not an object with the keys"),
    ],
    ids=("surrogate", "attack", "category", "score", "keys"),
)
def test_result_files(script, coco_path, tmp_path, rows, words):
    results, fixed = tmp_path / f"rows{ATTACK}.json", tmp_path / f"fixed{ATTACK}.json"
    results.write_text(json.dumps(rows))
    flags = ("--coco_path", coco_path, "--set_name", "val", "--results_path", results)
    runs = [script("test_submission", *flags), script("test_submission", *flags, "--fix", fixed)]
    assert [(one.code, one.err) for one in runs] == [(1, "")] * 2
    assert words in runs[0].out
    assert [text for text in shown_by(*runs) if not is_harmless(text)] == []


HOSTILE = {"output_path": "runs/\ud800" + ATTACK, "seed": f"a|b{ATTACK}", "depth": [[["`"]]]}
POINT_OF_1E308 = "Epoch: 0 | Iteration: 1 | Classification loss: 1e308 | Regression loss: 1.0 | Running loss: 1e308"
LOG = f"Settings: {json.dumps(HOSTILE)}\n{POINT_OF_1E308}\n"
DEEP = 'Settings: {"depth": ' + "[" * 900 + "]" * 900 + "}\n"


def test_logs(script, tmp_path, monkeypatch, shown_texts):
    monkeypatch.chdir(tmp_path)
    logs = [tmp_path / f"{number}{ATTACK}.log" for number in range(3)]
    logs[0].write_text(LOG)
    logs[1].write_text(LOG.replace("a|b", "c").replace('"seed"', json.dumps(f"flag|{ATTACK}")))
    logs[2].write_text(DEEP)
    for scale in ("log", "linear"):
        told = script("vis", "--logs", *logs, "--loss_scale", scale)
        assert (told.code, told.err) == (0, "")
        assert is_harmless(told.out)
        table = told.out.splitlines()[:5]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
        assert "a\\|b" in table[2]
        assert "\\`\\x07" in table[2]
        assert not re.search(r"(?<!\\)<img", told.out)
    assert [text for text in shown_texts if RAW.search(text)] == []


def test_the_spread_over_seeds(capsys):
    print_spread({seed: {f"AP of {ATTACK}": 0.5} for seed in (1, 2)})
    row = capsys.readouterr().out.splitlines()[-1]
    assert is_harmless(row)
    assert row.endswith("\\`\\x07\\t\\x7f | 0.5000 | 0.0000 | 0.5000 | 0.5000 |")


def test_messages(script, coco_path, tmp_path):
    change_json(coco_path / "train.json", lambda content: content["images"][0].update(file_name=f"{ATTACK}.png"))
    broken = tmp_path / f"broken{ATTACK}.pt"
    broken.write_bytes(b"nothing")
    output = ("--output_path", tmp_path / "out")
    runs = [
        script("train", "--coco_path", coco_path, *output, *TINY),
        script("train", "--coco_path", tmp_path / f"no{ATTACK}", *output),
        script("train", f"--no{ATTACK}"),
        script("test", "--coco_path", coco_path, "--set_name", "val", "--checkpoint_path", broken),
        script("vis", "--logs", broken),
        script("vis", "--coco_path", coco_path, "--picture_path", tmp_path / f"picture{ATTACK}"),
    ]
    assert [one.code for one in runs] == [2] * 6
    assert [text for text in shown_by(*runs) if not is_harmless(text)] == []


def test_an_encoding_that_lacks_letters_is_no_crash(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say("猫", "é \ud800")
    assert raw.getvalue() == b"\\u732b\n\\xe9 \\ud800\n"

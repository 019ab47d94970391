import math
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_script, write_set

from benchmarks import peer
from benchmarks.accuracy import main, record_of_run, runs_left
from benchmarks.accuracy_rows import BASELINE, PEER, Row, Run, Setting, filled, milestones_of, rows_of, runs_of
from benchmarks.accuracy_runs import execute, last_line
from benchmarks.accuracy_table import BEGIN, END, Record, difference_of, line_of, read_records, tables_text, with_tables
from retinanet import train_flags
from retinanet.analysis import analyse
from retinanet.annotation_cache import load_annotations
from retinanet.annotations import Annotations, owners_of
from retinanet.compare import compare
from retinanet.distributed import Ranks
from retinanet.evaluate import evaluate
from retinanet.results import write_results
from retinanet.train_setup import check_flags

GPU = Setting("cuda", 18, 608, 1024, 2, 24, (16, 21), "abc")
CPU = Setting("cpu", 18, 224, 384, 4, 6, (5,), "abc")
PARSERS = {
    "train.py": train_flags.build_parser,
    "test.py": lambda: load_script("test").build_parser(),
    "benchmarks/peer.py": peer.build_parser,
}


def rows_by_name(setting: Setting = GPU) -> dict[str, Row]:
    return {row.name: row for row in rows_of(setting)}


def test_rows_with_seeds_come_first_and_seed_by_seed():
    runs = runs_of(GPU, rows_of(GPU), [1, 2, 3])
    firsts = [(run.row.name, run.seed) for run in runs[:9]]
    assert firsts == [(name, seed) for seed in (1, 2, 3) for name in (BASELINE, "recommended", PEER)]
    assert [run.seed for run in runs[9:]] == [1] * (len(rows_of(GPU)) - 3)
    assert len({run.results_path for run in runs}) == len(runs)
    assert milestones_of(72) == (48, 64)


def test_milestones_and_sides_are_the_settings():
    words = {run.row.name: " ".join(run.commands[0]) for run in runs_of(GPU, rows_of(GPU), [1])}
    assert "--epochs 24 --milestones 16 21 --eval_every 24 --seed 1" in words[BASELINE]
    assert "--milestones" not in words["cosine"]
    assert "--milestones 16 21" in words[PEER]
    assert "--train_sides 480 544 608 672" in words["train_sides"]
    words = {run.row.name: " ".join(run.commands[0]) for run in runs_of(CPU, rows_of(CPU), [1])}
    assert "--train_sides 176 200 224 248" in words["train_sides"]


def test_test_time_rows_borrow_the_baselines_training():
    baseline, flip = runs_of(GPU, [rows_by_name()[name] for name in (BASELINE, "flip_test")], [1])
    assert flip.commands[0] == baseline.commands[0]
    assert flip.commands[1][:-3] == [word.replace("val.json", "flip_test.json") for word in baseline.commands[1][:-2]]
    assert flip.commands[1][-1] == "--flip_test"


def test_other_flags_and_settings_have_folders_of_their_own():
    longer = GPU._replace(epochs=36)
    runs = [runs_of(setting, [Row("a", flags)], [1])[0] for setting in (GPU, longer) for flags in ((), ("--resume",))]
    assert len({run.folder for run in runs}) == 4


@pytest.mark.parametrize("setting", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("name", list(rows_by_name()))
def test_scripts_take_the_commands(setting, name):
    (run,) = runs_of(setting._replace(device="cpu"), [rows_by_name(setting)[name]], [1])
    for _, script, *words in run.commands:
        parser = PARSERS[script]()
        args = parser.parse_args(words)
        if script == "train.py":
            check_flags(parser, args, Ranks())


def test_places_are_put_in_for_whole_words_and_folders():
    words = ["python", "$VOC5", "FOLDER/a/FOLDER", "FOLDERS", "$R18"]
    filled_words = filled(words, {"$VOC5": "d v", "$R18": "r", "FOLDER": "/f"})
    assert filled_words == ["python", "d v", "/f/a/FOLDER", "FOLDERS", "r"]


# Records made by hand: three draws of the images.


def record(row=BASELINE, seed=1, ap=0.5, drawn=(0.4, 0.5, 0.6), flags="", setting=GPU, outcome="done"):
    return Record(
        setting=setting,
        row=row,
        flags=flags,
        seed=seed,
        numbers=None if ap is None else {"AP": ap, "AP50": ap + 0.1, "AP of cat": ap},
        drawn_ap=[round(value * 10_000) for value in drawn],
        outcome=outcome,
        commands=[f"python train.py --seed {seed}"],
        date="2026-01-01",
        commit="0123456789abcdef-dirty",
        machine="a machine",
        versions="torch 2",
    )


def test_a_record_outlives_its_file(tmp_path):
    one = record()
    (tmp_path / "record").write_text(f"{line_of(one)}\n{line_of(one._replace(numbers=None))}\n")
    assert read_records(tmp_path / "record") == [one, one._replace(numbers=None)]
    assert read_records(tmp_path / "none") == []


def test_what_is_on_record_is_left_out():
    runs = runs_of(GPU, rows_of(GPU), [1, 2])
    done = [
        record(),
        record("cosine", flags="--schedule cosine --warmup_steps 500"),
        record("recommended", flags="old"),
    ]
    left = runs_left(runs, GPU, done)
    assert {(run.row.name, run.seed) for run in runs} - {(run.row.name, run.seed) for run in left} == {
        (BASELINE, 1),
        ("cosine", 1),
    }
    assert runs_left(runs, GPU._replace(epochs=6), done) == runs


def test_mean_deviation_and_difference_over_the_seeds():
    records = [record(seed=seed, ap=ap) for seed, ap in ((1, 0.50), (2, 0.52), (3, 0.54))]
    records += [record("recommended", seed, 0.56, (0.5, 0.6, 0.7), "--ema_decay 0.9") for seed in (1, 2)]
    text = tables_text(records)
    assert f"| baseline |  | 1, 2, 3 | 0.520 ± {statistics.stdev([0.5, 0.52, 0.54]):.3f} | 0.620 ± 0.020 |" in text
    # Against seeds 1 and 2 alone; all draws differ by as much.
    line = "| recommended | `--ema_decay 0.9` | 1, 2 | 0.560 ± 0.000 | 0.660 ± 0.000 | 0.560 ± 0.000 |"
    assert f"{line} +0.050 (+0.050 to +0.050) |" in text
    assert "# baseline, seed 1 of 1, 2, 3\n$ python train.py --seed 1" in text


@pytest.fixture(scope="module")
def annotations(tmp_path_factory) -> Annotations:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, "val", 12)
    return load_annotations(folder / "val.json")


def detections(annotations: Annotations, shift: float) -> list[dict]:
    """A detection for each object, some pixels off."""
    draw = np.random.default_rng(0)
    owners = annotations.image_ids[owners_of(annotations)].tolist()
    return [
        {
            "image_id": image_id,
            "category_id": annotations.category_ids[label],
            "bbox": (box + draw.normal(0, shift, 4)).tolist(),
            "score": float(draw.random()),
        }
        for image_id, label, box in zip(owners, annotations.labels, annotations.boxes, strict=True)
    ]


def test_difference_is_that_of_compare(annotations):
    analyses = [analyse(annotations, detections(annotations, shift)) for shift in (4, 2)]
    a, b = ({1: record(ap=one.ap.value, drawn=one.drawn_means[0])} for one in analyses)
    expected = compare(*analyses, annotations).differences[0].difference
    assert expected.low < expected.value < expected.high
    assert difference_of(a, b) == pytest.approx(expected, abs=1e-4)


def test_the_record_of_a_run(annotations, tmp_path):
    (run,) = runs_of(GPU, [rows_by_name()["giou"]], [7])
    places = {"$VOC5": "data", "FOLDER": str(tmp_path)}
    results_path, log = (Path(filled([name], places)[0]) for name in (run.results_path, f"{run.folder}.log"))
    results_path.parent.mkdir(parents=True)
    write_results(detections(annotations, 2), results_path)
    log.write_text(f"begin\ntrain.py: error: NaN in {tmp_path}/x of data\n")
    done, diverged = (record_of_run(run, code, GPU, annotations, torch.device("cpu"), places) for code in (0, 3))
    table = evaluate(annotations, detections(annotations, 2), "pycocotools").by_name(annotations.class_names)
    assert done.numbers == pytest.approx({name: table[name] for name in ("AP", "AP50", "AP of red", "AP of green")})
    assert len(done.drawn_ap) == 1000
    assert (done.row, done.flags, done.seed, done.outcome) == ("giou", "--box_loss giou", 7, "done")
    assert done.commands[0].startswith("python train.py --coco_path $VOC5 --weights $R18 ")
    assert (diverged.numbers, diverged.outcome) == (None, "train.py: error: NaN in FOLDER/x of $VOC5")


def test_without_a_common_seed_there_is_no_difference():
    assert math.isnan(difference_of({1: record()}, {2: record(seed=2)}).value)
    assert "| cosine |  | 2 | 0.500 | 0.600 | 0.500 | - |" in tables_text([record(), record("cosine", 2)])


def test_a_diverged_run_is_a_row_that_says_so():
    text = tables_text([record(), record("high_rate", ap=None, outcome="loss | NaN", flags="--learning_rate 1e-3")])
    assert "| high_rate (seed 1 diverged: loss / NaN) | `--learning_rate 1e-3` | 1 | - | - | - | - |" in text
    assert math.isnan(difference_of({1: record(ap=None)}, {1: record()}).value)
    halves = tables_text([record(), record("x", 1), record("x", 2, ap=None, outcome="NaN")])
    assert "| x (seed 2 diverged: NaN) |  | 1, 2 | 0.500 | 0.600 | 0.500 | +0.000 (+0.000 to +0.000) |" in halves


def test_each_setting_has_its_table_that_of_a_cpu_last_and_provisional():
    text = tables_text([record(setting=CPU, ap=0.1), record(), record("peer", ap=0.4)])
    gpu, cpu = text.split("### cpu")
    assert "Provisional" not in gpu
    assert "Provisional" in cpu
    assert "0.500" in gpu
    assert "0.500" not in cpu
    assert "AP of baseline less peer's: +0.100 (+0.100 to +0.100)." in gpu


def test_the_last_of_two_equal_runs_counts():
    assert "| baseline |  | 1 | 0.700 |" in tables_text([record(ap=0.5), record(ap=0.7)])


def test_only_the_tables_of_the_page_change():
    page = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = with_tables(page, [])
    assert once == f"before\n\n{BEGIN}\n\nNo run has been made yet.\n\n{END}\n\nafter\n"
    assert with_tables(once, []) == once


def test_the_page_has_its_place_for_tables():
    page = (Path(__file__).parent.parent / "benchmarks" / "accuracy.md").read_text()
    assert page.count(BEGIN) == page.count(END) == 1


# Runs of small commands instead of trainings.


def small_run(name: str, *scripts: str) -> Run:
    return Run(Row(name), 1, f"FOLDER/{name}", [["python", "-c", script] for script in scripts], "")


def executed(tmp_path, *runs: Run, **how) -> dict[str, int]:
    ended = {}
    execute(runs, {"FOLDER": str(tmp_path)}, lambda run, code: ended.update({run.row.name: code}), **how)
    return ended


def test_commands_follow_each_other_until_one_fails(tmp_path):
    runs = [
        small_run("good", "print(1)", "import sys; print(2, sys.argv[1])"),
        small_run("bad", "print('no'); raise SystemExit(3)", "print('never')"),
    ]
    assert executed(tmp_path, *runs, more=["--x"]) == {"good": 0, "bad": 3}
    places = {"FOLDER": str(tmp_path)}
    assert [last_line(run, places) for run in runs] == ["2 --x", "no"]


def test_several_at_a_time(tmp_path):
    meet = (
        "import pathlib, time\n"
        "pathlib.Path('{0}/{1}').touch()\n"
        "while not pathlib.Path('{0}/{2}').exists(): time.sleep(0.01)"
    )
    runs = [small_run(one, meet.format(tmp_path, one, other)) for one, other in (("a1", "b1"), ("b1", "a1"))]
    assert executed(tmp_path, *runs, jobs=2, deadline=time.monotonic() + 30) == {"a1": 0, "b1": 0}


def test_at_the_deadline_runs_are_asked_to_stop(tmp_path):
    patient = (
        "import signal, time\n"
        "def stop(*_):\n    print('saved', flush=True)\n    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    runs = small_run("patient", patient), small_run("next", "print(1)")
    started = time.monotonic()
    assert executed(tmp_path, *runs, deadline=started + 2) == {}
    assert time.monotonic() - started < 20
    assert last_line(runs[0], {"FOLDER": str(tmp_path)}) == "saved"
    assert not (tmp_path / "next.log").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rows", "cosine", "best"), "--rows best: choose from baseline, recommended"),
        (("--weights", "none.pth"), "--weights none.pth: no such file"),
        (("--seeds", "1", "1"), "--seeds has a seed twice"),
        (("--page", "README.md"), "--page README.md: no file with the lines"),
        (("--min_side", "2000"), "--max_side 1024 is below --min_side 2000"),
    ],
)
def test_mistakes(coco_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        main(["--coco_path", str(coco_path), "--weights", __file__, "--folder", "x", "--device", "cpu", *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from support.data_folder import write_set

from benchmarks.accuracy.__main__ import record_of_run, runs_left
from benchmarks.accuracy.rows import BASELINE, Setting, filled, rows_of, runs_of
from benchmarks.accuracy.table import (
    BEGIN,
    END,
    MOST_ROWS,
    SUMMARY,
    SUMMARY_END,
    Record,
    difference_of,
    line_of,
    read_records,
    tables_text,
    with_tables,
)
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.results import found_of, write_results
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.coco_table import evaluate
from retinanet.evaluation.compare import compare

GPU = Setting("cuda", 18, 608, 1024, 2, 24, (16, 21), "abc")
CPU = Setting("cpu", 18, 224, 384, 4, 6, (5,), "abc")


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
    analyses = [analyse(annotations, found_of(detections(annotations, shift), annotations)) for shift in (4, 2)]
    a, b = ({1: record(ap=one.ap.value, drawn=one.drawn_means[0])} for one in analyses)
    expected = compare(*analyses, annotations).differences[0].difference
    assert expected.low < expected.value < expected.high
    assert difference_of(a, b) == pytest.approx(expected, abs=1e-4)


def test_the_record_of_a_run(annotations, tmp_path):
    row = next(row for row in rows_of(GPU) if row.name == "giou")
    (run,) = runs_of(GPU, [row], [7])
    places = {"$VOC5": "data", "FOLDER": str(tmp_path)}
    results_path, log = (Path(filled([name], places)[0]) for name in (run.results_path, f"{run.folder}.log"))
    results_path.parent.mkdir(parents=True)
    write_results(detections(annotations, 2), results_path)
    log.write_text(f"begin\ntrain.py: error: NaN in {tmp_path}/x of data\n")
    done, diverged = (record_of_run(run, code, GPU, annotations, torch.device("cpu"), "abc", places) for code in (0, 3))
    found = found_of(detections(annotations, 2), annotations)
    table = evaluate(annotations, found, "pycocotools").by_name(annotations.class_names)
    assert done.numbers == pytest.approx({name: table[name] for name in ("AP", "AP50", "AP of red", "AP of green")})
    assert len(done.drawn_ap) == 1000
    assert (done.row, done.flags, done.seed, done.outcome) == ("giou", "--box_loss giou", 7, "done")
    assert done.commands[0].startswith("python train.py --coco_path $VOC5 --weights $R18 ")
    assert (diverged.numbers, diverged.outcome) == (None, "train.py: error: NaN in FOLDER/x of $VOC5")


def test_without_a_common_seed_there_is_no_difference():
    assert math.isnan(difference_of({1: record()}, {2: record(seed=2)}).value)
    assert "| cosine |  | 2 | 0.500 | 0.600 | 0.500 | - |" in tables_text([record(), record("cosine", 2)])


def test_a_diverged_run_is_marked_in_its_row():
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
    assert "AP of baseline minus peer's: +0.100 (+0.100 to +0.100)." in gpu


def test_the_latest_recommendation_is_compared_with_the_peer():
    text = tables_text(
        [
            record("peer", ap=0.4),
            record("recommended", ap=0.3, flags="--matcher atss"),
            record("recommended", ap=0.6, flags="--box_loss giou"),
        ]
    )
    assert "AP of recommended minus peer's: +0.200" in text
    assert text.count("AP of recommended") == 1
    assert "| recommended | `--matcher atss` | 1 | 0.300" in text  # what lost stays


def test_the_last_of_two_equal_runs_counts():
    assert "| baseline |  | 1 | 0.700 |" in tables_text([record(ap=0.5), record(ap=0.7)])


def test_only_the_tables_of_the_page_change():
    page = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = with_tables(page, [])
    assert once == f"before\n\n{BEGIN}\n\nNo run has been made yet.\n\n{END}\n\nafter\n"
    assert with_tables(once, []) == once


def test_a_page_with_a_place_for_the_summary_only_gets_no_tables():
    page = with_tables(f"{SUMMARY}\nold\n{SUMMARY_END}\n", [record()])
    assert "| baseline |" in page
    assert "python train.py" not in page
    assert BEGIN not in page


def test_the_pages_have_their_places_for_summary_and_tables():
    folder = Path(__file__).parents[2] / "benchmarks"
    summary, tables = (folder / name for name in ("accuracy.md", "results/accuracy.md"))
    assert summary.read_text().count(SUMMARY) == summary.read_text().count(SUMMARY_END) == 1
    assert tables.read_text().count(BEGIN) == tables.read_text().count(END) == 1


def test_the_summary_has_few_rows_of_the_longest_runs_the_best_first():
    many = [record(f"row{number}", ap=0.3 + number / 100, flags=f"--flag {number}") for number in range(20)]
    short = record("short", ap=0.9, setting=GPU._replace(epochs=6))
    page = f"{SUMMARY}\n{SUMMARY_END}\n{BEGIN}\n{END}\n"

    text = with_tables(page, [record(), short, *many, record("candidate_a", ap=0.99, flags="--x")])

    summary = text.partition(SUMMARY_END)[0]
    rows = [line.split(" | ")[0].strip("| ") for line in summary.splitlines() if line.startswith("| ")][2:]
    assert rows[:3] == [BASELINE, "row19", "row18"]
    assert len(rows) == MOST_ROWS
    assert "short" in text
    assert "candidate_a" in text

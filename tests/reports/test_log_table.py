from pathlib import Path

import pytest

from retinanet.reports.log_reader import Point, RunLog
from retinanet.reports.log_table import final_loss, hyper_parameter_table
from retinanet.reports.run_names import run_names

EMPTY = RunLog(Path("log/first | try.log"), [], {}, {}, {}, [])
FULL = EMPTY._replace(
    epoch_losses={0: 1.5, 1: 0.5626},
    tables={10: [0.1, 0.2, *[0] * 10], 20: [0.4055, 0.6, *[0] * 10]},
    settings={
        **{"output_path": "runs/model6", "seed": 3407, "depth": 18, "optimizer": "adam", "learning_rate": 2.5e-4},
        **{"batch_size": 2, "epochs": 50, "drop_last": True, "prior": 0.01, "alpha": 0.25, "gamma": 2.0},
    },
)


def test_a_row_for_each_log():
    lines = hyper_parameter_table([FULL, EMPTY])
    assert len({len(line) for line in lines}) == 1
    header, rule, full, empty = lines
    names = ["model", "seed", "depth", "optimizer", "rate", "batch", "epochs", "drop_last", "prior", "alpha", "gamma"]
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        *names,
        "final loss",
        "AP",
        "AP50",
        "best AP",
        "epoch",
    ]
    assert set(rule) == set("| -")
    wanted = (
        "| model6 | 3407 | 18 | adam | 2.5e-4 | 2 | 50 | yes | 1e-2 | 0.25 | 2 | 0.56260 | 0.406 | 0.600 | 0.406 | 20 |"
    )
    assert full.split() == wanted.split()
    assert empty.split() == ["|", "first", "\\|", "try", "|", *("-", "|") * 15]


def test_flags_in_which_runs_differ_have_a_column():
    settings = FULL.settings | {"output_path": "runs/model5"}
    plain = FULL._replace(settings=settings | {"matcher": "iou", "train_sides": None, "flip": 0.5})
    other = FULL._replace(settings=FULL.settings | {"matcher": "atss", "train_sides": [480, 608], "flip": 0.5})
    header, _, *rows = hyper_parameter_table([plain, other, EMPTY])
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *rows[:2])]
    assert [line[11:13] for line in found] == [["matcher", "train_sides"], ["iou", "-"], ["atss", "480 608"]]
    assert len(found[0]) == 18  # none for what is equal


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "first | try"),
        ({"output_path": "a/b"}, "b"),
        ({"output_path": "."}, "first | try"),
        ({"output_path": 1}, "first | try"),
    ],
)
def test_the_model_is_the_output_folder_or_the_log(settings, name):
    assert run_names([EMPTY._replace(settings=settings)]) == [name]


def test_the_final_loss():
    points = [Point(0, 1, 0.1, 0.2, 0.3, None), Point(0, 2, 0.1, 0.2, 0.25, None)]
    assert [final_loss(log) for log in (EMPTY, EMPTY._replace(points=points), FULL._replace(points=points))] == [
        None, 0.25, 0.5626,
    ]  # fmt: skip


def test_odd_values_end_no_cell():
    settings = {"seed": "a\n|b", "depth": [1], "learning_rate": float("nan"), "prior": -1.0, "drop_last": False}
    odd = EMPTY._replace(settings=settings, tables={None: [-1.0] * 12})
    row = hyper_parameter_table([odd])[2]
    assert "| a\\n\\|b | 1     | -         | nan  |" in row
    assert row.split()[-4:] == ["-", "|", "-", "|"]


def runs_of(setting, aps, *, folder="runs", **settings):
    """A log for each seed, with this AP at its end."""
    return [
        EMPTY._replace(
            path=Path(f"log/{folder}_{setting}_seed{seed}.log"),
            epoch_losses={0: 1.5, 1: 0.5 + 0.1 * seed},
            tables={1: [0.5, 0.6, *[0.0] * 10], 2: [ap, ap / 2, *[0.0] * 10]},
            settings={"seed": seed, "epochs": 2, "output_path": f"{folder}/{setting}/seed{seed}", **settings},
        )
        for seed, ap in enumerate(aps)
    ]


def cells(logs):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in hyper_parameter_table(logs)[2:]]


def test_the_mean_of_the_seeds_follows_the_runs_of_each_setting():
    a, b = runs_of("a", (0.1, 0.2, 0.3), gamma=2.0), runs_of("b", (0.25, 0.25), gamma=1.0)
    alone = runs_of("c", (0.5,), gamma=0.5)
    rows = cells([a[0], b[0], *alone, b[1], *a[1:]])
    names = ["a/seed0", "a/seed1", "a/seed2", "a: mean of 3 seeds"]
    assert [row[0] for row in rows] == [*names, "b/seed0", "b/seed1", "b: mean of 2 seeds", "c/seed0"]
    assert rows[3][1:7] == ["0 1 2", "-", "-", "-", "-", "2"]
    assert rows[3][10:] == ["2", "0.60000 ± 0.10000", "0.200 ± 0.100", "0.100 ± 0.050", "0.500 ± 0.000", "-"]
    assert rows[6][11:13] == ["0.55000 ± 0.07071", "0.250 ± 0.000"]


def test_a_mean_has_all_seeds_or_none_and_no_two_settings():
    a = runs_of("a", (0.1, 0.2))
    assert cells([a[0], a[1]._replace(tables={})])[2][11:] == ["0.55000 ± 0.07071", *"----"]
    assert len(cells([a[0], a[1]._replace(settings=a[1].settings | {"flip": 0.0})])) == 2
    elsewhere = runs_of("a", (0.1, 0.2), folder="others")  # such as on other data, which no setting tells
    assert [row[0] for row in cells([*a, *elsewhere])][::3] == ["runs/a/seed0", "others/a/seed0"]


def test_a_resumed_run_counts_once_and_tests_are_no_runs():
    a = [log._replace(points=[Point(1, 4, 0.1, 0.2, 0.3, None)]) for log in runs_of("a", (0.1, 0.2))]
    stopped = a[1]._replace(path=Path("log/stopped.log"), points=[Point(1, 2, 0.1, 0.2, 0.3, None)], tables={})
    (mean,) = [row for row in cells([*a, stopped]) if "mean" in row[0]]
    assert mean[12] == "0.150 ± 0.071"
    tests = [
        log._replace(path=Path(f"log/valid_{number}.log"), epoch_losses={})
        for number, log in enumerate(runs_of("a", (0.3, 0.4)))
    ]
    rows = cells([*a, *tests])
    assert [row[0] for row in rows[2:]] == ["a: mean of 2 seeds", "valid_0", "valid_1", "a: mean of 2 seeds"]
    assert rows[5][12] == "0.350 ± 0.071"
    twice = [*tests, tests[0]._replace(path=Path("log/valid_2.log"))]  # of another checkpoint?
    assert [row[0] for row in cells(twice)] == ["valid_0", "seed1", "valid_2"]

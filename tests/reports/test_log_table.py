from pathlib import Path

import pytest

from retinanet.reports.log_reader import Point, RunLog
from retinanet.reports.log_table import final_loss, hyper_parameter_table, model_name

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
    plain = FULL._replace(settings=FULL.settings | {"matcher": "iou", "train_sides": None, "flip": 0.5})
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
    assert model_name(EMPTY._replace(settings=settings)) == name


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

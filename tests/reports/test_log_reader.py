"""Logs of all versions, teed in all ways, read the same for the same run; other files are refused by name."""

import math
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.logs import EPOCH_LOSSES, POINTS, SETTINGS, TABLES, older, point_line, todays, written

from retinanet.evaluation.coco_table import table_text
from retinanet.reports.curves import curves_of
from retinanet.reports.log_reader import read_log, read_logs
from retinanet.reports.log_table import hyper_parameter_table
from retinanet.runtime.errors import UserError

NUMPY_LIST = "epoch_loss_list:\n[np.float64(1.20408163\n26530612), np.flo\nat64(0.98), np.float64(0.5626)]\n"
WITHOUT_HEADER = "[1.2040816326530612,\n 0.98, 0.5626]\n"
SAME_RUN = {
    "today's": todays(),
    "older, wrapped list": older(),
    "older, no header": older(end=WITHOUT_HEADER),
    "older, numpy": older(end=NUMPY_LIST),
    "older, tables": older(tables=True),
    "older, one line": older(tables=True, end=f"epoch_loss_list: {EPOCH_LOSSES}"),
    "CRLF": todays().replace("\n", "\r\n"),
    "times": re.sub("^(?=.)", "2026-11-29 08:30:12 ", todays(), flags=re.MULTILINE),
    "no line end": todays().rstrip(),
    "bars": todays().replace("Epoch: ", "\rEpoch 1:  33%|###3   | 1/3 [00:00<00:01]\r          \rEpoch: "),
    "colours": todays().replace("\n", "\x1b[0m\n\x1b[1A\x1b[2K"),
}


@pytest.mark.parametrize("shape", SAME_RUN)
def test_the_same_run_gives_the_same_curves_and_table(tmp_path, shape):
    log = read_log(written(tmp_path, SAME_RUN[shape]))
    of_today = read_log(written(tmp_path / "today", todays()))
    assert [point[:5] for point in log.points] == [point[:5] for point in POINTS]
    assert log.epoch_losses == dict(enumerate(EPOCH_LOSSES))
    assert log.tables == ({} if "older" in shape and "Average" not in SAME_RUN[shape] else TABLES)
    curve, wanted = curves_of([log])[0], curves_of([of_today])[0]
    assert curve.epochs.tolist() == wanted.epochs.tolist() == [0.25, 1, 1.25, 2, 2.25, 3]
    assert curve.losses.tolist() == wanted.losses.tolist() == [point.running for point in POINTS]
    assert curve.tables.tolist() == (wanted.tables.tolist() if log.tables else [])
    cells, wanted_cells = (hyper_parameter_table([one])[2].split() for one in (log, of_today))
    known = [
        one for one, cell in enumerate(cells) if cell != "-" and one != 1
    ]  # but the model, which has no other name
    assert [cells[one] for one in known] == [wanted_cells[one] for one in known]
    told = {"3407", "18", "1e-3", "3", "0.56260"} | ({"0.030", "0.060"} if log.tables else set())
    assert told <= {cells[one] for one in known}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks(tmp_path, encoding):
    log = read_log(written(tmp_path, SAME_RUN["CRLF"].encode(encoding)))
    assert (log.points, log.tables, log.settings["output_path"]) == (POINTS, TABLES, "runs/model6")


def test_settings_are_the_lines_else_the_names(tmp_path):
    assert read_log(written(tmp_path, todays(), "train_depth50.log")).settings["depth"] == 18
    of_name = {"depth": 50, "learning_rate": 1e-4}
    assert read_log(written(tmp_path, older(), "train_lr1e-4_depth50_no3_feb29_1804.log")).settings == of_name
    assert read_log(written(tmp_path, older(), "first try.log")).settings == {}


def test_drops_of_the_learning_rate(tmp_path):
    assert read_log(written(tmp_path, todays())).drops == [2]
    assert read_log(written(tmp_path, older())).drops == []
    settings = 'Settings: {"milestones": [1, 2, 3, "x"]}\n'
    assert read_log(written(tmp_path, settings + older())).drops == [1, 2]
    assert read_log(written(tmp_path, 'Settings: {"milestones": 3}\n' + older())).drops == []


def test_a_log_of_test_has_one_table(tmp_path):
    table = table_text(TABLES[3])
    new = f"Checkpoint: output/best.pt, depth 18, after 3 epochs\n{SETTINGS}\nNum val images: 5\n{table}\n"
    assert read_log(written(tmp_path, new)).tables == {3: TABLES[3]}
    old = read_log(written(tmp_path, f"Num val images: 5\n{table}", "valid_depth18.log"))
    assert (old.tables, old.settings, curves_of([old])) == ({None: TABLES[3]}, {"depth": 18}, [])


def test_losses_that_are_not_finite(tmp_path):
    text = older(end="epoch_loss_list:\n[nan, inf, np.float64(-inf)]\n")
    text = text.replace("Running loss: 1.21000", "Running loss: nan").replace(
        "Regression loss: 0.30000", "Regression loss: inf"
    )
    log = read_log(written(tmp_path, text))
    assert str(list(log.epoch_losses.values())) == "[nan, inf, -inf]"
    assert [str(point.running) for point in log.points[:2]] == ["nan", "1.11"]
    assert [point.regression for point in log.points] == [math.inf] * 6


def test_a_resumed_run_replaces_what_came_before(tmp_path):
    """Killed in epoch 1 after its first line and appended to with tee -a; the new lines are told by their losses."""
    lines = todays().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("Epoch: 1"))
    killed = "".join(lines[: at + 1]) + "Epoch: 1 | Iteration: 4 | Classification lo"
    again = "Resumed from output after 1 epochs and 0 iterations\n" + "".join(lines[at:])
    log = read_log(written(tmp_path, killed + f"{SETTINGS}\n" + again.replace("loss: 0.70000", "loss: 0.65000")))
    assert [point.classification for point in log.points] == [0.9, 0.8, 0.65, 0.6, 0.5, 0.4]
    assert log.tables == TABLES
    # From before the evaluation: its table comes again, the old one's later table is not kept.
    log = read_log(written(tmp_path, todays() + "Resumed from output after 1 epochs and 2 iterations\n"))
    assert (log.points, set(log.tables), set(log.epoch_losses)) == (POINTS[:3], {1}, {0})
    # Points alone tell it too, and a run from the start replaces all.
    log = read_log(written(tmp_path, older(tables=True) + point_line(POINTS[2]) + "\n"))
    assert (log.points[-1], len(log.points), set(log.tables)) == (POINTS[2], 3, {1})
    assert read_log(written(tmp_path, todays() * 2)) == read_log(written(tmp_path, todays()))
    # Nothing was left but the evaluation.
    start = "Resumed from output after 3 epochs and 0 iterations"
    text = f"{start}\n{table_text(TABLES[3])}\nepoch_loss_list:\n[1.5, 1.2, 1.1]"
    assert read_log(written(tmp_path, text)).tables == {3: TABLES[3]}


def test_the_logs_of_a_run_that_was_resumed_are_one_log(tmp_path):
    lines = todays().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("Epoch: 1"))
    first = written(tmp_path, "".join(lines[: at + 1]), "train_depth18_no9.log")
    again = f"{SETTINGS}\nResumed from output after 1 epochs and 1 iterations\n"
    written(tmp_path, again + "".join(lines[at + 1 :]), "train_depth18_no10.log")
    written(tmp_path, f"{SETTINGS}\nResumed from output after 3 epochs and 0 iterations\n", "train_depth18_no11.log")
    other = written(tmp_path, todays(), "train_depth18_no12.log")  # a new run in the same output folder
    whole = read_log(other)
    joined, fresh = sorted(read_logs([tmp_path])[0], key=lambda log: log.path != first)
    assert (joined.path, fresh.path) == (first, other)
    assert (joined.points, joined.tables, joined.epoch_losses) == (whole.points, whole.tables, whole.epoch_losses)


def test_a_run_stopped_before_its_first_losses_is_not_joined_to_the_run_before(tmp_path):
    first = written(tmp_path, todays(), "train_depth18_no1.log")
    second = written(tmp_path, f"{SETTINGS}\n", "train_depth18_no2.log")
    again = f"{SETTINGS}\nResumed from output after 0 epochs and 0 iterations\n"
    written(tmp_path, again + todays().replace(f"{SETTINGS}\n", ""), "train_depth18_no3.log")
    logs = {log.path: log for log in read_logs([tmp_path])[0]}
    assert logs.keys() == {first, second}
    assert logs[first].points == logs[second].points == POINTS


def test_a_log_cut_anywhere_tells_a_part_of_the_run(tmp_path):
    text = todays()
    whole = read_log(written(tmp_path, text))
    for end in range(text.index("Epoch: 0"), len(text), 11):
        log = read_log(written(tmp_path, text[:end]))
        for point, wanted in zip(log.points, whole.points, strict=False):
            assert point in (wanted, wanted._replace(learning_rate=None))
        assert log.tables.items() <= whole.tables.items()
        assert all(abs(loss - EPOCH_LOSSES[epoch]) < 1e-5 for epoch, loss in log.epoch_losses.items())


def test_a_log_cut_within_a_line_and_appended_to(tmp_path):
    line, before = point_line(POINTS[1]), point_line(POINTS[0])
    for end in range(len(line)):
        text = f"{before}\n{line[:end]}{SETTINGS}\n{point_line(POINTS[2])}\n"
        points = read_log(written(tmp_path, text)).points
        assert points in (POINTS[:3:2], POINTS[:3], [POINTS[0], POINTS[1]._replace(learning_rate=None), POINTS[2]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x00\xff\xfe\x00",
        "Hello".encode("utf-16"),
        b"[0.5, 0.25]",
        b"Epoch: 1 | Iteration: 2",
        b"[1, 2",
        b"PK\x03",
    ],
)
def test_what_is_no_log_is_named(tmp_path, content):
    with pytest.raises(UserError, match=r"x\.log: contains neither losses nor a table"):
        read_log(written(tmp_path, content, "x.log"))


def test_files_that_can_not_be_read_are_named(tmp_path):
    for path, words in ((tmp_path, "can't be read"), (tmp_path / "none.log", "no such file")):
        with pytest.raises(UserError, match=f"{path}: {words}"):
            read_log(path)


CASES = settings(
    max_examples=int(os.environ.get("MUTATIONS", 100)),
    deadline=10_000,  # ms: a hang is a failure
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PIECES = st.sampled_from(
    [
        *("\n", "\r", "\x1b[", "[", "]", "{", '"', "nan", "inf", "-", "9" * 30, "0.", "[" * 3000, "[0.5", "e999", "|"),
        *(line for line in todays().splitlines()[1:9]),
        *('Settings: {"output_path": 3, "milestones": [[]], "depth": {"a|": "b\\n"}}', 'Settings: {"depth": NaN}'),
        *(
            "Resumed from a after 0 epochs and 0 iterations",
            "epoch_loss_list:\n[1e999, 5]",
            "Checkpoint: , after 7 epochs",
        ),
    ]
)


def read_or_refused(path):
    try:
        log = read_log(path)
    except UserError as fault:
        refusal = str(fault)
    else:
        refusal = None
        assert len(hyper_parameter_table([log])) == 3
        assert all(len(curve.epochs) == len(curve.losses) > 0 for curve in curves_of([log]))
    assert refusal is None or refusal.startswith(f"{path}: ")


@CASES
@given(st.binary() | st.text().map(str.encode) | st.lists(PIECES).map(lambda pieces: "\n".join(pieces).encode()))
def test_any_file_is_read_or_refused(tmp_path, content):
    read_or_refused(written(tmp_path, content))


@CASES
@given(st.lists(st.tuples(st.integers(0, len(todays())), st.integers(0, 60), PIECES | st.text(max_size=5)), max_size=5))
def test_any_damaged_log_is_read_or_refused(tmp_path, damages):
    text = todays()
    for start, length, piece in damages:
        text = text[:start] + piece + text[start + length :]
    read_or_refused(written(tmp_path, text.encode(errors="replace")))


def test_deep_settings_tell_nothing(tmp_path):
    text = 'Settings: {"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n"
    assert read_log(written(tmp_path, text + older())).settings["depth"] == 18

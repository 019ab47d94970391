import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.runtime.log_file import RUN_KINDS, LogName, make_name, name_of_run, next_number, parse_name, rate_text

WHOLE = st.none() | st.integers(0, 2**63 - 1)
RATES = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
NAMES = st.builds(LogName, st.none() | st.sampled_from(RUN_KINDS), WHOLE, WHOLE, st.none() | RATES, WHOLE, WHOLE)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train_depth18_seed3407_lr1e-4_epochs50_no6.log", LogName("train", 18, 3407, 1e-4, 50, 6)),
        ("train_depth50_epochs20_no1.log", LogName("train", depth=50, epochs=20, number=1)),
        ("train_depth18_seed3407_lr1e-4_epochs50.log", LogName("train", 18, 3407, 1e-4, 50)),
        ("valid_no6_epochs50_depth18.log", LogName("valid", depth=18, epochs=50, number=6)),
        ("train_depth18_no3_feb29_1804.log", LogName("train", depth=18, number=3)),
        ("test_lr0.0001", LogName("test", learning_rate=1e-4)),
        ("test_lr2.5e-4", LogName("test", learning_rate=2.5e-4)),
        ("lr0_lr1e999_lr-1_depth_depth1.5_seed-1_nov3_epochs٣_no.log", LogName()),
        ("no" + "9" * 5000 + ".log", LogName()),
        ("depth18_depth34", LogName(depth=18)),
        ("", LogName()),
    ],
)
def test_names_that_people_type(name, parts):
    assert parse_name(name) == parts


@given(NAMES)
def test_a_made_name_is_read_back(name):
    assert parse_name(make_name(name)) == name


@given(st.text())
def test_any_text_is_a_name(text):
    parse_name(text)


def test_made_names():
    assert make_name(LogName("train", 18, 3407, 1e-4, 50, 6)) == "train_depth18_seed3407_lr1e-4_epochs50_no6.log"
    assert make_name(LogName("valid", number=1)) == "valid_no1.log"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(1e-4, "1e-4"), (2.5e-4, "2.5e-4"), (0.01, "1e-2"), (0.1, "0.1"), (1.0, "1"), (100.0, "1e2"), (1 / 3, str(1 / 3))],
)
def test_rates_are_short_and_exact(rate, text):
    assert rate_text(rate) == text


@given(RATES)
def test_a_rate_is_read_back(rate):
    assert float(rate_text(rate)) == rate


def test_the_name_of_a_run_uses_sound_settings_only():
    settings = {"depth": 18, "seed": 3407, "learning_rate": 1e-4, "epochs": 50}
    assert name_of_run("train", settings) == LogName("train", 18, 3407, 1e-4, 50)
    for wrong in ({"depth": "18"}, {"seed": -1}, {"epochs": True}, {"learning_rate": math.inf}, {"learning_rate": []}):
        assert name_of_run("test", wrong) == LogName("test")


def test_the_next_number_counts_all_kinds(tmp_path):
    assert next_number(tmp_path / "none") == next_number(tmp_path) == 1
    for name in ("train_no2.log", "valid_depth18_no11_feb29.log", "notes.txt", "train_no99.txt"):
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 12

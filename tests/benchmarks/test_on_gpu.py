"""benchmarks/on_gpu.sh with a program in place of Python: what it keeps, and how a later call continues."""

import os
import subprocess

import pytest
from support.scripts import ROOT

FAKE_PYTHON = """#!/bin/sh
case "$*" in *speed.loss*) echo broken >&2; exit 3;; *speed.detect*) sleep ${DETECTION_TAKES:-0};; esac
echo "result of $*"
"""


@pytest.fixture
def call(tmp_path):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)

    def call(**environment):
        told = {**os.environ, "PYTHON": str(python), "TINY": "cpu", **environment}
        command = ["bash", "benchmarks/on_gpu.sh", str(tmp_path / "results"), str(tmp_path)]
        run = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True)
        return run, sorted(path.name for path in (tmp_path / "results").iterdir())

    return call


def test_each_part_has_a_file_and_one_that_fails_stops_no_other(call, tmp_path):
    run, names = call()
    assert run.returncode == 1
    assert run.stdout.splitlines()[-2:] == [
        f"1 parts FAILED; their files in {tmp_path / 'results'} say how.",
        "All parts ran.",
    ]
    assert names[0] == "01_Right_results.md"
    assert len(names) == 15
    assert all(name.endswith(".md") for name in names)
    record = {name: (tmp_path / "results" / name).read_text() for name in names}
    failed = [name for name, text in record.items() if "**FAILED** (exit code 3)" in text]
    assert failed == ["12_Loss.md"]
    assert "broken" in record["12_Loss.md"]
    assert str(tmp_path) not in record["06_A_training_from_JPEGs__resumed.md"].split("`")[1].replace(
        str(tmp_path / "python"), ""
    )


def test_a_call_ends_at_its_limit_and_the_next_continues(call, tmp_path):
    run, first = call(SECONDS_A_CALL="299")
    assert run.returncode == 0
    assert run.stdout.splitlines()[-1] == f"{15 - len(first)} parts are left: give the same command again."
    assert 1 < len(first) < 15
    (tmp_path / "results" / first[0]).write_text("## kept as it is\n")
    (tmp_path / "results" / "99_torn.part").write_text("of a call that was killed")
    _, names = call()
    assert len([name for name in names if name.endswith(".md")]) == 15
    assert (tmp_path / "results" / first[0]).read_text() == "## kept as it is\n"


def test_without_a_folder_it_says_so():
    run = subprocess.run(["bash", "benchmarks/on_gpu.sh"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (2, "on_gpu.sh: name a folder for the results\n")

"""A process survives the loss of its stdout or stderr."""

import os
import subprocess
import sys

import pytest
from support.scripts import ROOT
from support.warm import finished

# Each leaves stdout or stderr as something ended it.
PIPE = "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, {})"
TERMINAL = "master, slave = os.openpty(); os.dup2(slave, {}); os.close(master)"
FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), {})"
SCRIPT = """
import os, sys
from pathlib import Path
from retinanet.runtime.console import run, say
from retinanet.runtime.log_file import LOG
from retinanet.runtime.log_file import LogName
from retinanet.runtime.streams import STDOUT, complain
def main():
    with {outlived}, LOG.recording(Path("log")), LOG.opened(LogName("train")):
        say("one")
        {change}
        say("two", "lines")
        complain("a message")
        say("three")
        Path("saved").touch()
    return 7
if __name__ == "__main__":
    run(main)
"""


def ended(tmp_path, change, *, outlived="STDOUT.outlived()", unbuffered=False):
    folder = tmp_path / "log"
    code = SCRIPT.format(change=change, outlived=outlived)
    if unbuffered:
        code = "import sys; sys.stdout.reconfigure(write_through=True)\n" + code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = finished(["-c", code], timeout=60, folder=tmp_path, environment=environment)
    logs = [path.read_text() for path in folder.glob("*.log")]
    return run, logs, (tmp_path / "saved").exists()


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("gone", [PIPE, TERMINAL])
def test_lines_that_stdout_refuses_go_to_stderr(tmp_path, gone, unbuffered):
    run, logs, saved = ended(tmp_path, gone.format(1), unbuffered=unbuffered)
    assert (run.stdout, run.stderr) == ("one\n", "two\nlines\na message\nthree\n")
    assert (run.returncode, saved, logs) == (7, True, ["one\ntwo\nlines\nthree\n"])


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("gone", [PIPE, TERMINAL, FULL])
def test_without_both_the_rest_is_silent(tmp_path, gone, unbuffered):
    run, logs, saved = ended(tmp_path, f"{gone.format(1)}; os.dup2(1, 2)", unbuffered=unbuffered)
    assert (run.stdout, run.stderr) == ("one\n", "")
    assert (run.returncode, saved, logs) == (7, True, ["one\ntwo\nlines\nthree\n"])


def test_a_terminal_that_closes_after_the_pipe(tmp_path):
    run, logs, saved = ended(tmp_path, f"{PIPE.format(1)}; say('early'); {TERMINAL.format(2)}; os.dup2(2, 1)")
    assert (run.stdout, run.stderr) == ("one\n", "early\n")
    assert (run.returncode, saved, logs) == (7, True, ["one\nearly\ntwo\nlines\nthree\n"])


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_disk_under_stdout_is_reported_once(tmp_path, unbuffered):
    run, logs, saved = ended(tmp_path, FULL.format(1), unbuffered=unbuffered)
    assert run.stderr.splitlines() == [
        "stdout can't be written (No space left on device). The run continues; stdout will lack lines.",
        "a message",
    ]
    assert (run.returncode, saved, logs) == (7, True, ["one\ntwo\nlines\nthree\n"])


@pytest.mark.parametrize(
    ("closing", "out", "err"),
    [(">&-", "", "a message\n"), ("2>&-", "one\ntwo\nlines\nthree\n", ""), (">&- 2>&-", "", "")],
)
def test_what_the_shell_has_closed_is_not_missed(tmp_path, closing, out, err):
    (tmp_path / "script.py").write_text(SCRIPT.format(change="", outlived="STDOUT.outlived()"))
    words = ["sh", "-c", f"{sys.executable} script.py {closing}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (7, out, err)
    assert [path.read_text() for path in (tmp_path / "log").glob("*.log")] == ["one\ntwo\nlines\nthree\n"]


def test_other_scripts_end_with_the_reader_of_their_output(tmp_path):
    run, _, saved = ended(tmp_path, PIPE.format(1), outlived="open(os.devnull)")
    assert (run.stdout, run.stderr, run.returncode, saved) == ("one\n", "", 141, False)


@pytest.mark.parametrize(
    ("stdout", "has_bar"),
    [("slave", True), ("os.open('lines', os.O_WRONLY | os.O_CREAT)", True), ("os.pipe()[1]", False)],
    ids=["terminal", "file", "pipe"],
)
def test_a_terminal_has_bars_unless_stdout_is_a_pipe(tmp_path, stdout, has_bar):
    """Such as to tee, which would print lines into them."""
    code = f"""
import os, sys
from pathlib import Path
from retinanet.runtime.streams import hides_bars
master, slave = os.openpty()
before = hides_bars()
os.dup2(slave, 2)
os.dup2({stdout}, 1)
Path("told").write_text(f"{{before}} {{hides_bars()}}")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert finished(["-c", code], timeout=60, folder=tmp_path, environment=environment).returncode == 0
    assert (tmp_path / "told").read_text() == f"True {not has_bar}"


def test_a_message_that_nobody_reads_changes_no_exit_code(tmp_path):
    code = f"""
import os
from retinanet.runtime.console import run
from retinanet.runtime.errors import UserError
def main():
    {PIPE.format(2)}
    raise UserError("a mistake")
run(main)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert finished(["-c", code], timeout=60, folder=tmp_path, environment=environment).returncode == 2

"""The right signals stop a run, and repeated ones count as one request."""

import os
import signal
import time

import pytest
from support.scripts import ROOT
from support.warm import Process, finished

from retinanet.runtime import signals
from retinanet.runtime.errors import Stopped
from retinanet.runtime.signals import STOP


@pytest.fixture
def handlers():
    """Restores the handlers, whichever the tests were started with."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_closed_terminal_stops():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with STOP.heeded(), pytest.raises(Stopped) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.value.exit_code == 129


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", signals.SIGNALS)
def test_signals_ignored_at_the_start_stay_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does, and a shell for what a script starts with &
    with STOP.heeded(), STOP.deferred():
        os.kill(os.getpid(), number)
        assert STOP.signal_number is None
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_comes_twice_does_not_disturb_the_end(monkeypatch):
    """A shell that ends passes SIGHUP on to a program that has it from the terminal already."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with STOP.heeded():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        later = time.monotonic() + signals.SAME_REQUEST
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGHUP)


IN_STEP = """
import time
from retinanet.runtime.console import run
from retinanet.runtime.signals import STOP
def main():
    with STOP.deferred():
        print("in step", flush=True)
        while STOP.signal_number is None:
            time.sleep(0.01)
        time.sleep({seconds})
        print("saved", flush=True)
    return 130
run(main)
"""


def twice_interrupted(seconds, seconds_between, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = Process(["-c", IN_STEP.format(seconds=seconds)], environment=environment)
    assert process.stdout.readline() == "in step\n"
    process.send_signal(signal.SIGINT)
    time.sleep(seconds_between)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def test_of_several_ranks_a_second_interrupt_at_once_is_the_same():
    """It comes from the terminal and from the launcher."""
    assert twice_interrupted(1.0, 0.2, WORLD_SIZE="2", RANK="0") == (130, "saved\n")
    assert twice_interrupted(30.0, signals.SAME_REQUEST + 0.3, WORLD_SIZE="2", RANK="0") == (130, "")
    assert twice_interrupted(30.0, 0.2, WORLD_SIZE="1") == (130, "")


def test_a_worker_that_has_just_been_forked_leaves_signals_to_the_main_process():
    code = """
import os, signal
from retinanet.runtime.console import run
def main():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
run(main)
"""
    run = finished(["-c", code], timeout=60, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (run.returncode, run.stderr) == (3, "")


def test_a_stop_while_workers_are_forked_is_not_lost():
    """Python prints and forgets what is raised in a callback of a fork, such as those of logging's lock."""
    code = """
import os, signal
from types import SimpleNamespace
import numpy as np
from retinanet.data.dataloader import evaluation_loader
from retinanet.data.dataloader import LoaderSettings
from retinanet.runtime.console import run
def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(100):
        pass
def main():
    sizes = np.array([[64, 64]] * 4)
    dataset = SimpleNamespace(sizes=sizes, annotations=SimpleNamespace(sizes=sizes))
    loader = evaluation_loader(dataset, LoaderSettings(2, workers=1))
    os.register_at_fork(after_in_parent=interrupt)
    iter(loader)
    return 0
run(main)
"""
    run = finished(["-c", code], timeout=60, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (run.returncode, run.stderr) == (143, "")


@pytest.mark.parametrize(("ignored", "expected"), [("", "SIGHUP,"), ("signal.SIGHUP", "")])
def test_a_launcher_passes_on_what_is_not_ignored(ignored, expected):
    code = f"""
import os, signal
for number in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:  # which a shell's background job may ignore
    signal.signal(number, signal.SIG_DFL)
for number in [{ignored}]:
    signal.signal(number, signal.SIG_IGN)
import retinanet.launch as launch
launch.torchrun = lambda: print(os.environ["PET_SIGNALS_TO_HANDLE"])
launch.main()
"""
    environment = {name: value for name, value in os.environ.items() if name != "PET_SIGNALS_TO_HANDLE"}
    run = finished(["-c", code], timeout=60, environment={**environment, "PYTHONPATH": str(ROOT)})
    assert run.stdout == f"SIGTERM,SIGINT,{expected}SIGQUIT,SIGUSR1\n"


def test_a_launcher_names_a_mistake_in_torchruns_flags():
    words = ["-m", "retinanet.launch", "--nproc_per_node", "two", "train.py"]
    run = finished(words, timeout=60, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert run.returncode == 2
    assert run.stderr.startswith("launch: error: Unsupported nproc_per_node value: two")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(("words", "own"), [(["--help"], True), (["-h"], True), (["train.py", "--help"], False)])
def test_a_launcher_describes_itself_and_leaves_the_scripts_flags_alone(words, own):
    code = f"""
import sys
import retinanet.launch as launch
sys.argv[1:] = {words}
launch.torchrun = lambda: print("torchrun ran")
sys.exit(launch.main())
"""
    run = finished(["-c", code], timeout=60, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert run.returncode == 0
    assert run.stdout.startswith("usage: python -m retinanet.launch [torchrun's flags] SCRIPT") == own
    assert ("torchrun --help lists all" in run.stdout) == own == ("torchrun ran" not in run.stdout)


def test_a_worker_says_nothing_of_a_batch_that_the_main_process_dropped():
    code = """
from retinanet.runtime.signals import ignore_in_worker
ignore_in_worker(0)
import sys
for error in BrokenPipeError("dropped"), ConnectionResetError("dropped"), ValueError("a fault"):
    sys.excepthook(type(error), error, None)
"""
    run = finished(["-c", code], timeout=60, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert run.stderr == "ValueError: a fault\n"

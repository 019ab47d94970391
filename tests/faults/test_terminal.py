"""A training run in a terminal, piped to tee, is saved when the user presses Ctrl-C or closes the terminal."""

import os

import pytest
import torch
from support.data_folder import write_set
from support.scripts import ROOT, TINY
from support.warm import finished

from retinanet.checkpoints.resume import load_saved

FLAGS = (*TINY, "--epochs", 2, "--eval_every", 1, "--batch_size", 2, "--log_every", 1, "--save_every", 1, "--resume")

# The terminal's side: when `trigger` is true, the terminal is closed if `is_closed`, otherwise Ctrl-C is pressed. Ends
# with the run's exit code.
TERMINAL = """
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
from pathlib import Path
output, log = Path({output!r}), Path({log!r})
child, terminal = pty.fork()
if child == 0:  # train.py in the terminal's foreground, with tee
    for number in signal.SIGINT, signal.SIGHUP:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin = open(0)
    sys.stderr = open(2, "w", buffering=1)
    tee = subprocess.Popen(["tee", "-a", str(log)], stdin=subprocess.PIPE)
    os.dup2(tee.stdin.fileno(), 1)
    tee.stdin.close()
    sys.stdout = open(1, "w", closefd=False)
    sys.argv = {words!r}
    sys.path.insert(0, {root!r})
    import runpy
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))  # a bar needs a width
shown = b""
def drain():
    global shown
    while select.select([terminal], [], [], 0.002)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            return
def text():
    return log.read_text() if log.exists() else ""
while not ({trigger}):
    drain()
    if os.waitpid(child, os.WNOHANG)[0]:
        sys.exit("ended too early: " + shown.decode())
if {is_closed}:
    os.close(terminal)
else:
    os.write(terminal, b"\\x03")
while not (end := os.waitpid(child, os.WNOHANG))[0]:
    {is_closed} or drain()
{is_closed} or drain()
print(shown.decode(), end="")
sys.exit(os.waitstatus_to_exitcode(end[1]))
"""
TRIGGERS = {
    "step": '"Epoch: 0 | Iteration: 2 " in text()',
    "save": '"Epoch: 0 | Iteration: 3 " in text() and list(output.glob("last.pt.*.part"))',
    "evaluation": '"Epoch 0 took" in text() and (output / "retinanet_epoch1.pt").exists()',
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    for name, count in (("train", 11), ("val", 5)):
        write_set(folder / "data", name, count)
    run = trained(folder, folder / "output")
    assert run.returncode == 0, run.stderr
    return folder


def words_of(folder, output, *more):
    paths = ("--coco_path", folder / "data", "--output_path", output)
    return [str(word) for word in (ROOT / "train.py", *paths, *FLAGS, *more)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def trained(folder, output, *more):
    return finished(words_of(folder, output, *more), timeout=120, environment=environment(), is_narrow=True)


@pytest.mark.parametrize(
    ("moment", "workers", "is_closed"),
    [("step", 2, False), ("save", 0, False), ("evaluation", 0, True), ("step", 0, True), ("evaluation", 2, False)],
)
def test_ctrl_c_and_a_closed_terminal_save(undisturbed, tmp_path, moment, workers, is_closed):
    output, log = tmp_path / "output", tmp_path / "tee.log"
    words = words_of(undisturbed, output, "--workers", workers, "--log_dir", tmp_path / "log")
    names = {"output": str(output), "log": str(log), "words": words, "root": str(ROOT), "is_closed": is_closed}
    code = TERMINAL.format(trigger=TRIGGERS[moment], **names)
    run = finished(["-c", code], timeout=120, environment=environment(), is_narrow=True)
    assert run.returncode == (129 if is_closed else 130), run.stdout + run.stderr
    name = "SIGHUP" if is_closed else "SIGINT"
    (file,) = (tmp_path / "log").iterdir()
    last = file.read_text().splitlines()[-1]
    assert last == f"Stopped by {name}: {output / 'last.pt'} is saved, and --resume continues from it"
    assert is_closed or last in run.stdout + log.read_text()
    assert "Epoch 0: " not in run.stdout  # a progress bar, which the lines that tee prints would overwrite
    assert load_saved(output / "last.pt").state["epoch"] in (0, 1)
    assert not list(output.glob("*.part"))
    again = trained(undisturbed, output, "--workers", workers)
    assert again.returncode == 0, again.stderr
    one, other = (torch.load(folder / "model_final.pt")["model"] for folder in (undisturbed / "output", output))
    assert all(torch.equal(one[key], other[key]) for key in one)

"""A run that was stopped in any way resumes to the numbers of an uninterrupted one."""

import io
import json
import os
import re
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch
from support.accidents import before_each_batch
from support.built import small_network, small_state
from support.data_folder import write_set
from support.scripts import ROOT, TINY, Finished, run_script
from support.warm import Process

from retinanet.checkpoints.checkpoint import build_model
from retinanet.checkpoints.resume import load_saved, newest_run
from retinanet.runtime.errors import Stopped
from retinanet.runtime.signals import STOP
from retinanet.training import build, compilation
from retinanet.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("narrow_network")

FLAGS = (*TINY, "--eval_every", 2, "--batch_size", 2, "--learning_rate", 0.001, "--log_every", 2, "--workers", 0)

# All that keeps a state of its own, or goes by the step.
IMPROVED = ("--ema_decay", 0.9, "--accumulate", 2, "--schedule", "cosine", "--warmup_steps", 3, "--weight_decay", 0.1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Another number of threads adds in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A data folder, and the output folder of a run of 3 epochs with 4 steps each."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name, count in (("train", 7), ("val", 3)):
        write_set(folder / "data", name, count)
    log = train(folder, folder / "output", "--epochs", 3).out
    (folder / "log").write_text(log)
    return folder


def words_of(folder, output, *more):
    return [str(word) for word in ("--coco_path", folder / "data", "--output_path", output, *FLAGS, *more)]


def start(folder, output, *more):
    """train.py in a process of its own."""
    words = [ROOT / "train.py", *words_of(folder, output, *more)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return Process(words, environment=environment, new_session=True, is_narrow=True)


def train(folder, output, *more):
    """Run train.py in this process."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["train.py", *words_of(folder, output, *more)]
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run_script("train")
    return Finished(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def weights(output, name="model_final.pt"):
    return torch.load(output / name, weights_only=True)["model"]


def assert_same_end(folder, output, log):
    assert log.splitlines()[-1] == (folder / "log").read_text().splitlines()[-1]
    for name in ("model_final.pt", "best.pt"):
        one, other = weights(folder / "output", name), weights(output, name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def without_times(log):
    """The log's lines of losses and tables."""
    lines = [line.split(" | Images/s")[0] for line in log.splitlines()]
    return [line for line in lines if line.startswith(("Epoch: ", " Average"))]


def test_a_run_stopped_within_an_epoch_resumes_at_the_next_batch(script, undisturbed, tmp_path):
    def stop_in_six(batch):
        if batch == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path / "output"
    flags = ("--coco_path", undisturbed / "data", "--output_path", output, *FLAGS, "--epochs", 3, "--workers", 2)
    with before_each_batch(stop_in_six):
        first = script("train", *flags, "--resume")
    assert first.code == 143
    assert f"{output} holds nothing to resume" in first.out
    assert "Stopped by SIGTERM" in first.out
    refused = script("train", *flags, "--epochs", 1, "--resume")
    assert refused.code == 2
    assert "has trained 1 epoch and 2 iterations, which is more than --epochs 1. Set --epochs to 2 or" in refused.err
    again = script("train", *flags, "--eval_every", 1, "--resume")  # these are no longer the weights of epoch 1
    assert again.code == 0
    assert f"Resumed from {output} after 1 epochs and 2 iterations" in again.out
    assert_same_end(undisturbed, output, again.out)
    whole = without_times((undisturbed / "log").read_text())
    assert without_times(first.out) + without_times(again.out) == whole
    record = json.loads((output / "run.json").read_text())
    assert record["resumed"] == ["after 1 epochs and 2 iterations"]
    assert record["started"]["settings"]["epochs"] == 3
    fewer = script("train", *flags, "--epochs", 2, "--resume")
    assert fewer.code == 2
    assert "has trained 3 epochs, which is more than --epochs 2. Set --epochs to 3 or more" in fewer.err


def wait_for(process, text):
    """Read the process's output until a line has `text` in it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines) + process.stderr.read())


def test_a_signal_to_all_saves_and_no_worker_stays_behind(undisturbed, tmp_path):
    output, flags = tmp_path / "output", ("--epochs", 3, "--workers", 1)
    process = start(undisturbed, output, *flags)
    wait_for(process, "Epoch: 1 | Iteration: 4")  # an evaluation follows
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGUSR1)  # the workers too, as a terminal's Ctrl-C does
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert (process.returncode, err) == (128 + signal.SIGUSR1, "")
    assert "Stopped by SIGUSR1" in out
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    again = train(undisturbed, output, *flags, "--resume")
    assert_same_end(undisturbed, output, again.out)


def test_a_second_sigint_ends_at_once(tmp_path):
    code = """
import time
from retinanet.runtime.console import run
from retinanet.runtime.signals import STOP
from retinanet.training.state import TrainingState
def main():
    with STOP.deferred():
        print("in step", flush=True)
        time.sleep(60)
run(main)
"""
    process = Process(["-c", code])
    wait_for(process, "in step")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None  # it would finish its step
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


@pytest.fixture(scope="module")
def half_done(undisturbed):
    """The output folder of the run after 1 of 3 epochs."""
    output = undisturbed / "half"
    assert train(undisturbed, output, "--epochs", 1, "--save_every", 3).code == 0
    return output


def copied(half_done, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    for path in half_done.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    return output


LOCK = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_a_run_that_is_still_writing_is_not_resumed(undisturbed, half_done, tmp_path, monkeypatch):
    """Even if it ends, and so may save, while the run that resumes it is being built."""
    output = copied(half_done, tmp_path)
    other = Process(["-c", LOCK, output / ".lock"])
    wait_for(other, "locked")
    build_run = build.build_run

    def slow(*how):
        other.kill()
        other.wait()
        return build_run(*how)

    monkeypatch.setattr("retinanet.training.run.build_run", slow)
    again = train(undisturbed, output, "--epochs", 3, "--resume")
    other.kill()
    assert again.code == 2
    assert "another run is writing there" in again.err


def test_a_broken_last_falls_back_to_the_one_before(undisturbed, half_done, tmp_path):
    output = copied(half_done, tmp_path)
    content = bytearray((output / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1  # torch.load would not notice
    (output / "last.pt").write_bytes(content)
    again = train(undisturbed, output, "--epochs", 3, "--resume")
    assert re.search(r"Can't resume from .*last\.pt: .*checksum", again.out)
    assert "Resumed from" in again.out
    assert_same_end(undisturbed, output, again.out)


def test_without_any_whole_checkpoint_a_new_run_starts_and_nothing_is_lost(undisturbed, half_done, tmp_path):
    output = copied(half_done, tmp_path)
    for name in ("last.pt", "previous.pt"):
        (output / name).write_bytes((output / name).read_bytes()[:5000])
    again = train(undisturbed, output, "--epochs", 3, "--resume")
    assert again.code == 0
    assert again.out.count("Can't resume from") == 2
    assert (output / "before_1" / "last.pt").stat().st_size == 5000
    assert_same_end(undisturbed, output, again.out)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--learning_rate", 0.01), "--learning_rate 0.001, this command has 0.01"),
        (("--seed", 1), "--seed 3407, this command has 1"),
        (("--batch_size", 3), "--batch_size 2, this command has 3"),
        (("--alpha", 0.5), "--alpha 0.25, this command has 0.5"),
        (("--precision", "bfloat16"), "precision float32, this command has bfloat16"),
        (("--compile", "on"), "--compile off, this command has on"),
    ],
    ids=str,
)
def test_other_numbers_are_refused_with_both_values(script, undisturbed, half_done, tmp_path, flags, words):
    output = copied(half_done, tmp_path)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    data = ("--coco_path", undisturbed / "data", "--output_path", output)
    run = script("train", *data, *FLAGS, "--epochs", 3, *flags, "--resume")
    assert run.code == 2
    assert words in run.err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_what_changes_no_number_may_change(undisturbed, half_done, tmp_path):
    output = copied(half_done, tmp_path)
    flags = ("--epochs", 3, "--workers", 1, "--log_every", 1, "--cache", "ram", "--save_every", 2, "--resume")
    assert_same_end(undisturbed, output, train(undisturbed, output, *flags).out)
    done = train(undisturbed, output, *flags)  # nothing is left to do
    assert (done.code, done.err) == (0, "")
    assert_same_end(undisturbed, output, done.out)


@pytest.mark.parametrize(("caches", "code"), [(("ram", "none"), 143), (("none", "ram"), 2)])
def test_another_cache_leaves_the_sides_of_a_strong_run(undisturbed, tmp_path, caches, code):
    """The recipe trains at several sides, unless the cache has images of one size."""

    def stop(batch):
        os.kill(os.getpid(), signal.SIGTERM)

    with before_each_batch(stop):
        flags = ("--recipe", "strong", "--epochs", 12, "--resume")
        runs = [train(undisturbed, tmp_path / "output", *flags, "--cache", cache) for cache in caches]
    assert [run.code for run in runs] == [143, code], runs[1].err
    refusal = "--cache ram keeps images of one size, which doesn't suit --train_sides 64 70 77. Remove one of the two."
    assert (refusal in runs[1].err) == (code == 2)
    settings = json.loads((tmp_path / "output" / "run.json").read_text())["settings"]
    assert settings["train_sides"] == (None if caches[0] == "ram" else [64, 70, 77])


def test_more_epochs_leave_a_run_uncompiled(undisturbed, half_done, tmp_path, monkeypatch):
    """Even if so many batches would repay the compilation."""
    why_not = compilation.why_not_compiled
    monkeypatch.setattr(compilation, "lacking_for_compilation", lambda device: None)
    monkeypatch.setattr(compilation, "BATCHES_WORTH_COMPILING", 10)
    monkeypatch.setattr(
        build, "why_not_compiled", lambda flag, device, *how, **more: why_not(flag, torch.device("cuda"), *how, **more)
    )
    again = train(undisturbed, copied(half_done, tmp_path), "--epochs", 3, "--resume")
    assert (again.code, "not compiled (as before it was resumed)" in again.out) == (0, True), again.err


def test_changed_annotations_are_refused(script, undisturbed, half_done, tmp_path):
    write_set(tmp_path / "data", "train", 7)
    write_set(tmp_path / "data", "val", 3)
    path = tmp_path / "data" / "train.json"
    path.write_text(path.read_text() + " ")
    output = copied(half_done, tmp_path)
    data = ("--coco_path", tmp_path / "data", "--output_path", output)
    run = script("train", *data, *FLAGS, "--epochs", 3, "--resume")
    assert run.code == 2
    assert "the annotation file of the train set has changed since" in run.err


def test_weights_without_a_state_and_other_states_are_refused(script, undisturbed, half_done, tmp_path):
    output = copied(half_done, tmp_path)
    data = ("--coco_path", undisturbed / "data", "--output_path", output)
    good = (output / "last.pt").read_bytes()
    for name, broken in (("exp_avg", torch.zeros(3)), ("step", torch.zeros(3))):
        (output / "last.pt").write_bytes(good)
        content = torch.load(output / "last.pt", weights_only=True)
        content["run"]["state"]["optimizer"]["state"][0][name] = broken
        torch.save(content, output / "last.pt")
        run = script("train", *data, *FLAGS, "--epochs", 3, "--resume")
        assert run.code == 2
        assert "its training state does not fit this run" in run.err
    for name in ("last.pt", "previous.pt"):
        (output / name).write_bytes((output / "model_final.pt").read_bytes())
    run = script("train", *data, *FLAGS, "--epochs", 1, "--resume")
    assert "without the state of its run" in run.out
    assert run.code == 0


def test_last_can_be_evaluated(script, undisturbed, half_done, tmp_path):
    results = ("--results_path", tmp_path / "results.json", "--set_name", "val")
    flags = ("--coco_path", undisturbed / "data", "--device", "cpu", *results)
    assert script("test", *flags, "--checkpoint_path", half_done / "last.pt").code == 0


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_save_that_fails_leaves_the_last_good_one(script, undisturbed, half_done, tmp_path, monkeypatch, trouble):
    output = copied(half_done, tmp_path)
    good = (output / "last.pt").read_bytes()

    def fails(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device") if trouble == "full" else OSError(30, "Read-only file system")

    monkeypatch.setattr("retinanet.checkpoints.torch_files.torch.save", fails)
    run = script(
        "train", "--coco_path", undisturbed / "data", "--output_path", output, *FLAGS, "--epochs", 2, "--resume"
    )
    assert (output / "last.pt").read_bytes() == good
    assert not list(output.glob("*.part"))
    told = r"last\.pt: can't be written \(No space left on device: [\d.]+ MB needed, [\d.]+ [MG]B free\)\. Make room"
    assert re.search(told if trouble == "full" else r"last\.pt: can't be written \(Read-only file system\)", run.err)
    assert "training continues" in run.err
    assert len(json.loads(run.out.splitlines()[-1])) == 2  # it went on to its end
    assert (run.code, "model_final.pt: can't be written" in run.err.splitlines()[-1]) == (2, True)


@pytest.mark.parametrize("flags", [("--optimizer", "sgd"), ("--deterministic",), IMPROVED], ids=str)
def test_verify_resume(script, undisturbed, tmp_path, flags):
    data = ("--coco_path", undisturbed / "data", "--output_path", tmp_path / "output")
    run = script("train", *data, *FLAGS, "--verify_resume", 3, *flags)
    torch.use_deterministic_algorithms(False)
    assert run.code == 0, run.out
    assert "Equal to the last bit after 6 steps" in run.out
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("flags", [("--compile", "on"), ("--compile", "off")], ids=str)
def test_verify_resume_of_groups_of_parameters(script, undisturbed, tmp_path, monkeypatch, flags):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda compute, **settings: compiled.append(compute) or compute)
    data = ("--coco_path", undisturbed / "data", "--output_path", tmp_path / "output")
    improved = ("--backbone_rate", 0.1, "--weight_decay", 0.01, "--ema_decay", 0.9)
    run = script("train", *data, *FLAGS, *flags, *improved, "--verify_resume", 3)
    assert run.code == 0, run.out + run.err
    assert bool(compiled) == ("on" in flags)


def test_stages_that_were_random_keep_their_rate(script, undisturbed, tmp_path):
    backbone = small_network().backbone.state_dict()
    part = {name: value for name, value in backbone.items() if not name.startswith("layer4")}
    torch.save(part, tmp_path / "part.pth")
    data = ("--coco_path", undisturbed / "data", "--output_path", tmp_path / "output")
    flags = ("--weights", tmp_path / "part.pth", "--backbone_rate", 0.1, "--verify_resume", 3)
    run = script("train", *data, *FLAGS, *flags)
    assert run.code == 0, run.out
    assert "so random: layer4" in run.out


def test_verify_resume_finds_what_is_not_saved(script, undisturbed, tmp_path, monkeypatch):
    plain = TrainingState.to_plain

    def forgetful(self):
        content = plain(self)
        content["optimizer"]["param_groups"][0]["betas"] = (0.5, 0.5)
        return content

    monkeypatch.setattr(TrainingState, "to_plain", forgetful)
    data = ("--coco_path", undisturbed / "data", "--output_path", tmp_path / "output")
    run = script("train", *data, *FLAGS, "--verify_resume", 3)
    assert run.code == 1
    assert re.search(r"Differs: step [56]: loss \S+, resumed", run.out)


def test_other_anchors_than_the_runs_are_refused_if_given(script, undisturbed, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    content = torch.load(undisturbed / "output" / "last.pt", weights_only=True)
    content["anchors"]["side"] = 3
    torch.save(content, output / "last.pt")
    flags = ("--coco_path", undisturbed / "data", "--output_path", output, *FLAGS, "--epochs", 4, "--resume")
    before = (output / "last.pt").read_bytes()
    refused = script("train", *flags, "--anchor_scale", 4)
    assert refused.code == 2
    assert "last.pt: its run has --anchor_scale 3, this command has 4, which changes the numbers." in refused.err
    assert (output / "last.pt").read_bytes() == before
    taken = script("train", *flags)
    assert taken.code == 0, taken.err
    assert (
        f"Network: as in {output / 'last.pt'}, --depth 18 --channels 16 --head_norm none --anchor_scale 3 " in taken.out
    )
    del content["anchors"]  # an older file means today's
    torch.save(content, output / "last.pt")
    assert script("train", *flags).code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["facts"].update(batch_size="2"),
        lambda run: run["facts"].update(num_ranks=None),
        lambda run: run["state"].pop("iteration"),
        lambda run: run["state"].update(iteration=1.5),
        lambda run: run["state"].update(iteration=2**70),
    ],
)
def test_a_broken_state_of_training_is_no_traceback(undisturbed, tmp_path, change):
    content = torch.load(undisturbed / "output" / "last.pt", weights_only=True)
    change(content["run"])
    torch.save(content, tmp_path / "last.pt")
    run, complaints = newest_run(tmp_path)
    assert run is None
    assert complaints == [f"{tmp_path}/last.pt: the state of its run is broken. Move the file away."]


def test_stop_requests():
    before = signal.getsignal(signal.SIGINT)
    with STOP.heeded(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGUSR1)
    with STOP.heeded(), STOP.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert STOP.signal_number == signal.SIGTERM
        with pytest.raises(Stopped) as stop:
            list(STOP.stoppable([1, 2]))
        assert stop.value.exit_code == 143
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_saved_before_there_were_numbers_resumes(undisturbed, tmp_path):
    saved = load_saved(undisturbed / "output" / "last.pt")
    state = {name: value for name, value in saved.state.items() if name != "numbers"}
    model = build_model(saved.checkpoint, saved.path, learn_statistics=True)
    kept = small_state(model)
    kept.load_plain(state, saved.path)
    assert (kept.epoch, kept.numbers) == (saved.state["epoch"], {})

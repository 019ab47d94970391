"""A disk that fills up during training leads to clear messages and whole files."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.checkpoints.resume import load_saved
from retinanet.commands.evaluate import better_checkpoint
from retinanet.runtime.errors import UserError
from retinanet.training import evaluation, saves

pytestmark = pytest.mark.usefixtures("narrow_network")
FLAGS = (*TINY, "--workers", 0, "--batch_size", 4, "--eval_every", 1, "--learning_rate", 0.001)


@pytest.fixture
def small_disk(tmp_path):
    """Provides a folder on a disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    free = os.statvfs(place)
    (place / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 50_000))


@pytest.fixture
def train(script, coco_path, monkeypatch):
    """Runs train.py with evaluations that return `aps`; `happens` is called before the evaluation of epoch `at`."""

    def call(output, *more, aps=(), at=None, happens=lambda: None):
        def evaluate(run):
            if run.state.epoch == at:
                happens()
            return aps[run.state.epoch - 1]

        monkeypatch.setattr(evaluation, "evaluate_weights", evaluate)
        return script("train", "--coco_path", coco_path, "--output_path", output, *FLAGS, *more)

    return call


def best_lines(run):
    return [line for line in run.out.splitlines() if line.startswith("Best: ")]


def test_best_names_what_is_on_the_disk(train, small_disk):
    output = small_disk / "output"
    run = train(output, "--epochs", 3, aps=(0.25, 0.5, 0.375), at=2, happens=lambda: fill(small_disk))
    assert run.code == 2  # model_final.pt wasn't saved
    (line,) = best_lines(run)  # best.pt is of epoch 1, but the weights of epoch 2 were saved before their evaluation
    assert line.startswith("Best: AP 0.500 after epoch 2 of 3. Evaluate it: ")
    assert line.endswith(f"--checkpoint_path {output / 'retinanet_epoch2.pt'}")
    assert load_checkpoint(output / "best.pt").epoch == 1
    assert load_checkpoint(output / "retinanet_epoch2.pt").epoch == 2
    assert not list(output.glob("*.part"))
    told = re.findall(r"(\S+): can't be written \(No space left on device: (\S+) MB needed, (\S+) kB free\)", run.err)
    weights = {"best.pt", "retinanet_epoch2.pt", "retinanet_epoch3.pt", "model_final.pt"}  # epoch 2 with a threshold
    assert {Path(path).name for path, _, _ in told} == {"last.pt", *weights}
    assert all(float(needed) > 1 and float(free) < 100 for _, needed, free in told)
    assert "enforce fail" not in run.err

    (small_disk / "filler").unlink()
    again = train(output, "--epochs", 3, "--resume", aps=(0.25, 0.5, 0.375))
    assert again.code == 0, again.err
    (line,) = best_lines(again)
    assert line.startswith("Best: AP 0.500 after epoch 2 of 3. Evaluate it: ")
    assert load_checkpoint(output / "best.pt").epoch == 2
    assert line.endswith(f"--checkpoint_path {output / 'best.pt'}")


def test_without_any_weights_on_the_disk_there_is_no_best(train, small_disk, monkeypatch):
    output, begin = small_disk / "output", saves.Saves.__init__

    def filled(self, run):
        begin(self, run)
        fill(small_disk)

    monkeypatch.setattr(saves.Saves, "__init__", filled)
    run = train(output, "--epochs", 1, aps=(0.25,))
    assert run.code == 2
    assert best_lines(run) == []
    assert not list(output.glob("*.pt"))


def test_a_save_into_a_full_disk_leaves_the_checkpoint_before_it_whole(train, small_disk):
    output = small_disk / "output"
    assert train(output, "--epochs", 1, aps=(0.25,)).code == 0
    before = {name: (output / name).read_bytes() for name in ("last.pt", "previous.pt", "best.pt")}
    fill(small_disk)
    run = train(output, "--epochs", 2, "--resume", aps=(0.25, 0.5))
    assert run.code == 2
    assert best_lines(run) == [
        line for line in run.out.splitlines() if line.startswith("Best: AP 0.250 after epoch 1 of 2.")
    ]
    assert before == {name: (output / name).read_bytes() for name in before}
    assert load_saved(output / "last.pt").state["epoch"] == 1


def test_a_better_best_that_could_not_be_saved_is_tried_again(train, tmp_path, monkeypatch):
    """The next evaluation that beats the AP of best.pt saves it."""
    save = saves.save_checkpoint

    def fails_for_best(checkpoint, path):
        if path.name == "best.pt" and checkpoint.epoch == 2:
            raise UserError(f"{path}: can't be written")
        save(checkpoint, path)

    monkeypatch.setattr(saves, "save_checkpoint", fails_for_best)
    run = train(tmp_path / "out", "--epochs", 3, aps=(0.25, 0.5, 0.375))
    assert run.code == 0
    assert load_checkpoint(tmp_path / "out" / "best.pt").epoch == 3
    hint = better_checkpoint(tmp_path / "out" / "retinanet_epoch1.pt", 1)
    assert "best.pt was better on the run's val set: AP 0.375 after epoch 3, 0.250 after epoch 1." in hint
    assert better_checkpoint(tmp_path / "out" / "model_final.pt", 3) is None


def warnings_of(run):
    assert run.code == 0, run.err
    return [line for line in run.out.splitlines() if " are free, but the run will write " in line]


def test_too_little_space_is_reported_at_the_start(train, tmp_path, monkeypatch):
    output, free = tmp_path / "output", [10**12]
    monkeypatch.setattr(saves, "free_space", lambda folder: free[0])
    assert warnings_of(train(output, "--epochs", 2, aps=(0.25, 0.5))) == []
    sizes = {path.name: path.stat().st_size for path in output.glob("*.pt")}
    assert len(sizes) == 6
    written = sum(sizes.values()) + sizes["last.pt"]

    free[0] = round(written * 0.9)
    (line,) = warnings_of(train(tmp_path / "other", "--epochs", 2, aps=(0.25, 0.5)))
    told = re.fullmatch(
        rf"Warning: {tmp_path}/other: (\S+) MB are free, but the run will write (\S+) MB\. Its files will take "
        r"(\S+) MB: 4 files of weights, (\S+) MB each, and the state of the run twice, (\S+) MB each, and "
        r"once more while it is saved\. Make room, set --keep, raise --eval_every, or choose another --output_path",
        line,
    )
    all_sizes = (free[0], written, sum(sizes.values()), sizes["best.pt"], sizes["last.pt"])
    expected = [size / 1e6 for size in all_sizes]
    assert [float(number) for number in told.groups()] == pytest.approx(expected, rel=0.05, abs=0.1)

    # With --keep 1, there is one file of weights less.
    free[0] = round(written - 0.9 * sizes["best.pt"])
    assert warnings_of(train(tmp_path / "kept", "--epochs", 2, "--keep", 1, aps=(0.25, 0.5))) == []

    # For a resumed run, only what isn't there yet counts: the weights of one epoch, and a file in progress.
    free[0] = round(1.1 * (sizes["best.pt"] + sizes["last.pt"]))
    assert warnings_of(train(output, "--epochs", 3, "--resume", aps=(0.25, 0.5, 0.375))) == []
    free[0] = round(0.9 * sizes["last.pt"])
    assert len(warnings_of(train(output, "--epochs", 4, "--resume", aps=(0.25, 0.5, 0.375, 0.25)))) == 1

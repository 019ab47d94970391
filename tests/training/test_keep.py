"""--keep: how many weights of evaluations stay. A run says at its start what its files will take."""

import re
from pathlib import Path

import pytest
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.runtime.errors import UserError
from retinanet.training import evaluation, saves

pytestmark = pytest.mark.usefixtures("narrow_network")
APS = (0.25, 0.5, 0.375, 0.125, 0.25)


@pytest.fixture
def train(script, coco_path, tmp_path, monkeypatch):
    """Trains with an evaluation after each epoch, whose AP are given."""
    monkeypatch.setattr(evaluation, "evaluate_weights", lambda run: APS[run.state.epoch - 1])

    def call(epochs, *more):
        flags = (*TINY, "--workers", 0, "--batch_size", 4, "--epochs", epochs, "--eval_every", 1)
        run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "output", *flags, *more)
        assert run.code == 0, run.err
        return run.out.splitlines()

    return call


def epochs_on_disk(folder):
    return sorted(int(path.stem.removeprefix("retinanet_epoch")) for path in folder.glob("retinanet_epoch*.pt"))


def removed(lines, keep):
    start = f"Removed, as --keep is {keep}: "
    return [Path(line.removeprefix(start)).name for line in lines if line.startswith(start)]


@pytest.mark.parametrize(
    ("flags", "kept"), [((), [1, 2, 3, 4]), (("--keep", "all"), [1, 2, 3, 4]), (("--keep", 2), [3, 4])]
)
def test_the_newest_stay(train, tmp_path, flags, kept):
    lines = train(4, *flags)
    assert epochs_on_disk(tmp_path / "output") == kept
    assert removed(lines, 2) == [f"retinanet_epoch{epoch}.pt" for epoch in range(1, 5) if epoch not in kept]
    others = {path.name for path in (tmp_path / "output").glob("*.pt")} - {
        f"retinanet_epoch{epoch}.pt" for epoch in kept
    }
    assert others == {"best.pt", "model_final.pt", "last.pt", "previous.pt"}
    assert load_checkpoint(tmp_path / "output" / "best.pt").epoch == 2


def test_the_best_weights_stay_if_there_is_no_best_file(train, tmp_path, monkeypatch):
    save = saves.save_checkpoint

    def fails(checkpoint, path):
        if path.name == "best.pt":
            raise UserError(f"{path}: can't be written")
        save(checkpoint, path)

    monkeypatch.setattr(saves, "save_checkpoint", fails)
    lines = train(4, "--keep", 1)
    assert epochs_on_disk(tmp_path / "output") == [2, 4]
    (best,) = [line for line in lines if line.startswith("Best: ")]
    assert best.endswith("retinanet_epoch2.pt")


def test_an_older_file_stays_until_a_newer_one_is_written(train, tmp_path, monkeypatch):
    save = saves.save_checkpoint

    def fails(checkpoint, path):
        if path.name in ("retinanet_epoch3.pt", "retinanet_epoch4.pt"):
            raise UserError(f"{path}: can't be written")
        save(checkpoint, path)

    monkeypatch.setattr(saves, "save_checkpoint", fails)
    train(4, "--keep", 1)
    assert epochs_on_disk(tmp_path / "output") == [2]


def test_a_resumed_run_removes_what_it_has_too_many_of(train, tmp_path):
    train(3)
    ahead = tmp_path / "output" / "retinanet_epoch7.pt"  # of a run that went further before it was taken back
    ahead.write_bytes(b"later")
    lines = train(3, "--keep", 2, "--resume")
    assert removed(lines, 2) == ["retinanet_epoch1.pt"]
    assert epochs_on_disk(tmp_path / "output") == [2, 3, 7]
    train(5, "--keep", 1, "--resume")
    assert epochs_on_disk(tmp_path / "output") == [5, 7]


def test_a_file_that_can_not_be_removed_does_not_end_the_run(train, tmp_path, monkeypatch):
    def unlink(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    train(3)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert removed(train(3, "--keep", 1, "--resume"), 1) == []
    assert epochs_on_disk(tmp_path / "output") == [1, 2, 3]


@pytest.mark.parametrize(("flags", "num_weights"), [((), 5), (("--keep", 1), 3), (("--keep", 9), 5)])
def test_the_run_says_what_its_files_will_take(train, tmp_path, flags, num_weights):
    for epochs, resumed in ((2, ()), (3, ("--resume",))):
        (line,) = [line for line in train(epochs, *flags, *resumed) if line.startswith("Disk: ")]
    output = tmp_path / "output"
    told = re.fullmatch(
        rf"Disk: the run's files in {output} will take (\S+) MB: {num_weights} files of weights, (\S+) MB each, and "
        r"the state of the run twice, (\S+) MB each",
        line,
    )
    sizes = {path.name: path.stat().st_size / 1e6 for path in output.glob("*.pt")}
    assert len(sizes) == num_weights + 2
    expected = [sum(sizes.values()), sizes["best.pt"], sizes["last.pt"]]
    assert [float(number) for number in told.groups()] == pytest.approx(expected, rel=0.05, abs=0.1)


def test_the_size_of_an_earlier_runs_files_is_told(train, tmp_path):
    train(1)
    (line,) = [line for line in train(1) if "holds an earlier run" in line]
    files = [path for path in (tmp_path / "output" / "before_1").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    assert line.endswith(f": 6 files moved to {tmp_path / 'output' / 'before_1'} ({size:.1f} MB)")


def test_at_least_one_stays(script):
    assert "expected a whole number, 1 or more; got '0'" in script("train", "--keep", 0).err

"""Runs train.py for fault tests, in forked processes that don't need to import PyTorch again, and disturbs the runs."""

import contextlib
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from support.accidents import before_each_batch
from support.built import small_network
from support.data_folder import write_set
from support.scripts import TINY, run_script

from retinanet.checkpoints import torch_files
from retinanet.checkpoints.resume import newest_run
from retinanet.detector.structures import Losses
from retinanet.runtime.errors import UserError
from retinanet.training import build as run_module

FLAGS = (*TINY, "--epochs", 3, "--eval_every", 2, "--batch_size", 2, "--learning_rate", 0.001, "--log_every", 2)
SAVING = ("--workers", 1, "--save_every", 2, "--resume")
MEMORY = 2 * 10**9  # the most bytes that a run on an odd image may use, including PyTorch

Change = Callable[[], None]


class Ended(NamedTuple):
    code: int  # negative: by that signal
    out: str
    err: str
    seconds: float
    seconds_after: float  # the signal
    memory: int  # bytes at the peak


class Seen(NamedTuple):
    held: bool
    seen: str


def prepare(folder: Path) -> None:
    """Writes the dataset: 9 images to train on, and 3 to evaluate on."""
    write_set(folder / "data", "train", 9)
    write_set(folder / "data", "val", 3)


def train(
    folder: Path,
    output: Path,
    *more: Any,
    change: Change | None = None,
    signal_after: float | None = None,
    number: int = 0,
    data: Path | None = None,
) -> Ended:
    """Runs train.py in a forked process, in which `change` is called first.

    After `signal_after` seconds, if given, the process is sent the signal `number`.
    """
    words = ("--coco_path", data or folder / "data", "--output_path", output, *FLAGS, *SAVING, *more)
    out, err = folder / "out", folder / "err"
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        _become_train([str(word) for word in words], out, err, change)
    sent = started
    if signal_after is not None:
        time.sleep(signal_after)
        sent = time.monotonic()
        os.kill(process, number)
    _, status, used = os.wait4(process, 0)
    now, code = time.monotonic(), os.waitstatus_to_exitcode(status)
    return Ended(code, out.read_text(), err.read_text(), now - started, now - sent, used.ru_maxrss * 1024)


def _become_train(words: list[str], out: Path, err: Path, change: Change | None) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    code = 1
    try:
        sys.argv = ["train.py", *words]
        if change:
            change()
        run_script("train")
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `work` returns in a forked process: the process that forks must not have PyTorch's threads."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        with os.fdopen(writer, "wb") as file:
            try:
                answer: Any = work(*arguments)
            except BaseException:
                answer = (0, traceback.format_exc().splitlines()[-1])
            file.write(json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(process, 0)
    return answer


def undisturbed(folder: Path) -> float:
    """Runs the training that all others must equal; returns the seconds that it took."""
    ended = train(folder, folder / "undisturbed")
    if ended.code != 0:
        raise RuntimeError(ended.err)
    (folder / "list").write_text(ended.out.splitlines()[-1])
    return ended.seconds


def same_end(folder: Path, output: Path, ended: Ended) -> bool:
    same = ended.out.splitlines()[-1] == (folder / "list").read_text()
    return same and in_child(_same_weights, str(folder / "undisturbed"), str(output))


def _same_weights(one: str, other: str) -> bool:
    for name in ("model_final.pt", "best.pt"):
        pair = [torch.load(Path(folder) / name, weights_only=True)["model"] for folder in (one, other)]
        if not all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0]):
            return False
    return True


def is_finite(output: Path) -> bool:
    """Returns True if the weights and statistics that a run saved last are finite, or if it saved none."""
    return in_child(_is_finite, str(output))


def _is_finite(output: str) -> bool:
    path = Path(output) / "last.pt"
    return not path.exists() or all(
        bool(value.isfinite().all()) for value in torch.load(path, weights_only=True)["model"].values()
    )


def kill_in_write(number: int, share: float) -> Change:
    """Kills the process when `share` of the checkpoint that it writes as number `number` is on the disk.

    With a share above 0.8, it is killed right after the file is renamed, and with one above 0.9, right before.
    """

    def change() -> None:
        save, replace, writes = torch.save, os.replace, [0]

        def saves(content: Any, file: Any) -> None:
            writes[0] += 1
            save(content, file)
            if writes[0] == number and share <= 0.8:
                file.truncate(int(share * file.tell()))
                os.fsync(file.fileno())
                os.kill(os.getpid(), signal.SIGKILL)

        def replaces(one: Any, other: Any) -> None:
            if writes[0] == number and share > 0.9:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(one, other)
            if writes[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        torch_files.torch.save = saves  # type: ignore[assignment]
        os.replace = replaces  # type: ignore[assignment]

    return change


def plant_nan(steps: Iterable[int]) -> Change:
    """Makes the loss NaN in these steps."""

    def change() -> None:
        plain_of, calls = run_module.losses_of, [0]

        def losses_of(*arguments: Any, **settings: Any) -> Any:
            plain = plain_of(*arguments, **settings)

            def losses(*batch: Any) -> Losses:
                calls[0] += 1
                found = plain(*batch)
                return Losses(found.classification * float("nan"), found.regression) if calls[0] in steps else found

            return losses

        run_module.losses_of = losses_of

    return change


@contextlib.contextmanager
def spoiled_disk(place: Path, trouble: str) -> Iterator[tuple[Path, Change]]:
    """Yields an output folder, and a Change that spoils its disk before the first step, and so before any save."""
    place.mkdir()
    is_root = os.geteuid() == 0
    if is_root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800m", "tmpfs", str(place)], check=True)

    def spoil() -> None:
        if not is_root:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        elif trouble == "full":
            free = os.statvfs(place)
            (place / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 100_000))
        else:
            # A read-only mount on top: the tmpfs itself can't be remounted, because the run holds a lock in it.
            subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)

    def change() -> None:
        before_each_batch(lambda batch: spoil() if batch == 1 else None)

    try:
        yield place / "output", change
    finally:
        if is_root:
            while os.path.ismount(place):
                subprocess.run(["umount", str(place)], check=True)


def load_damaged(folder: Path, count: int) -> tuple[int, str]:
    source = folder / "undisturbed"
    last, previous = ((source / name).read_bytes() for name in ("last.pt", "previous.pt"))
    steps = [torch.load(source / name)["run"]["state"]["evaluated"] for name in ("last.pt", "previous.pt")]
    draw, held, fell_back, harmless = random.Random(3), 0, 0, 0
    place = folder / "damaged"
    place.mkdir()
    (place / "previous.pt").write_bytes(previous)
    for case in range(2 * count):
        damaged = bytearray(last)
        if case % 2:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(damaged)) :]
        (place / "last.pt").write_bytes(damaged)
        saved, complaints = newest_run(place)
        if saved is None:
            continue
        if saved.path.name == "previous.pt":
            fell_back += 1
            held += len(complaints) == 1 and saved.state["evaluated"] == steps[1]
        else:  # a bit that holds nothing, such as padding or a time
            harmless += 1
            whole = torch.load(source / "last.pt", weights_only=True)
            same = _equal(saved.checkpoint.model, whole["model"])
            held += same and _equal(saved.state["optimizer"], whole["run"]["state"]["optimizer"])
    return held, f"{fell_back} fell back, {harmless} flips in bytes without content"


def _equal(one: Any, other: Any) -> bool:
    """Compares nested plain data with tensors to the bit; a comparison as text would leave out most numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch was_run",)


def load_malicious(folder: Path, numbers: int) -> tuple[int, str]:
    """Loads files with code in them, a file that unpacks to `numbers` numbers, and a file that claims a huge tensor."""
    place = folder / "malicious"
    place.mkdir()
    os.chdir(place)
    torch.save({"format": "retinanet 1", "model": Code()}, "code.pt")
    Path("pickle.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"model": torch.zeros(numbers)}, "plain.pt")
    with zipfile.ZipFile("plain.pt") as plain, zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in plain.namelist():
            with plain.open(name) as source, bomb.open(name, "w") as target:
                while part := source.read(2**20):
                    target.write(part)
    os.remove("plain.pt")
    torch.save({"model": torch.zeros(1).expand(10**12)}, "huge.pt")
    sizes = [f"{name} {os.path.getsize(name)} bytes" for name in ("bomb.pt", "huge.pt")]
    before, held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for name in ("code.pt", "pickle.pt", "bomb.pt", "huge.pt"):
        try:
            torch_files.load_file(name, "a checkpoint")
        except UserError:
            held += not os.path.exists("was_run")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return held if grown < 200 else 0, f"{', '.join(sizes)}; memory grew by {grown:.0f} MB"


def not_finite_inputs(folder: Path) -> dict[str, int]:
    in_child(_write_infinite, str(folder))
    codes = {"weights": train(folder, folder / "infinite", "--weights", folder / "infinite.pth").code}
    data = folder / "nan_data"
    write_set(data, "train", 4)
    write_set(data, "val", 2)
    content = json.loads((data / "train.json").read_text())
    content["annotations"][0]["bbox"][0] = float("nan")
    (data / "train.json").write_text(json.dumps(content))
    codes["annotations"] = train(folder, folder / "nan", data=data).code
    return codes


def _write_infinite(folder: str) -> bool:
    state = small_network(channels=16).backbone.state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("inf")
    torch.save(state, Path(folder) / "infinite.pth")
    return True


def odd_images(folder: Path) -> list[Seen]:
    """Trains with an image of an extreme size, or an empty file, among the other images."""
    found = []
    for name, (height, width), wanted in (
        ("1x1", (1, 1), 0),
        ("1x10,000", (1, 10_000), 0),
        ("20,000x20,000", (20_000, 20_000), 2),
        ("0 bytes", (0, 0), 2),
    ):
        data = folder / f"images {name}"
        for set_name in ("train", "val"):
            write_set(data, set_name, 4)
        path = data / "images" / "train" / "1.png"
        if height:
            Image.new("1", (width, height)).save(path)
            content = json.loads((data / "train.json").read_text())
            content["images"][0] |= {"width": width, "height": height}
            content["annotations"][0]["bbox"] = [0, 0, width, height]
            (data / "train.json").write_text(json.dumps(content))
        else:
            path.write_bytes(b"")
        ended = train(folder, folder / f"run {name}", data=data)
        clear = wanted == 0 or (path.name in ended.err and "Traceback" not in ended.err)
        size = path.stat().st_size
        words = f"{name} ({size} bytes): code {ended.code}, {ended.memory / 1e9:.1f} GB"
        found.append(Seen(ended.code == wanted and clear and ended.memory < MEMORY, words))
    return found

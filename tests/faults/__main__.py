"""Makes everything happen that can go wrong with a run, and prints a table of the outcomes.

    python -m tests.faults            (all; exit code 1 if a promise was broken)
    python -m tests.faults --small    (a few cases, without the rows that tests cover anyway)

Works on a small dataset that it writes itself, on the CPU, with one thread per process. Filling a disk needs root,
because a tmpfs is mounted; without root, a limit on the size of files takes its place. The last rows run existing
tests.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]  # as pytest has them
os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported

import fault_runs as runs  # noqa: E402
import torch  # noqa: E402
from support.narrow import narrowed  # noqa: E402

from benchmarks.speed.protocol import describe  # noqa: E402

Row = tuple[str, str, int, int, str]  # fault, promise, cases, held, what was seen


def killed(folder: Path, count: int) -> Row:
    """Sends SIGKILL: in one case of three while a checkpoint is being written, otherwise at a random moment."""
    draw, held, landed = random.Random(1), 0, {"in a write": 0, "elsewhere": 0, "after its end": 0}
    duration = runs.undisturbed(folder)
    for case in range(count):
        output = folder / f"killed{case}"
        if case % 3 == 0:
            change = runs.kill_in_write(draw.randint(1, 12), draw.random())
            code = runs.train(folder, output, change=change).code
            landed["in a write" if code == -9 else "after its end"] += 1
        else:
            code = runs.train(folder, output, signal_after=draw.uniform(0.02, 0.9) * duration, number=9).code
            landed["elsewhere" if code == -9 else "after its end"] += 1
        again = runs.train(folder, output)
        held += again.code == 0 and runs.same_end(folder, output, again)
        shutil.rmtree(output)  # 0.4 GB a case would fill a disk
    seen = ", ".join(f"{number} {where}" for where, number in landed.items())
    return "SIGKILL", "resumes; losses and weights bit-identical", count, held, seen


def signalled(folder: Path, count: int) -> Row:
    draw, held, slowest, late = random.Random(2), 0, 0.0, 0
    duration = runs.train(folder, folder / "timed").seconds  # the undisturbed run was the first, which is slower
    for case in range(count):
        number, output = (15, 2, 10)[case % 3], folder / f"signalled{case}"
        stopped = runs.train(folder, output, signal_after=draw.uniform(0.05, 0.95) * duration, number=number)
        late += stopped.code == 0  # the run had already ended
        slowest = max(slowest, stopped.seconds_after)
        again = runs.train(folder, output)
        in_time = stopped.code in (0, 128 + number) and stopped.seconds_after < 10
        held += in_time and again.code == 0 and runs.same_end(folder, output, again)
        shutil.rmtree(output)
    seen = f"slowest end {slowest:.1f} s after the signal; {late} had ended before"
    return (
        "SIGTERM, SIGINT, SIGUSR1",
        "ends within 10 s with the signal's exit code; resumed, bit-identical",
        count,
        held,
        seen,
    )


def disk(folder: Path) -> Row:
    seen, held = [], 0
    for trouble in ("full", "read-only"):
        with runs.spoiled_disk(folder / trouble, trouble) as (output, spoil):
            runs.train(folder, output, "--epochs", 1)
            good = (output / "last.pt").read_bytes()
            ended = runs.train(folder, output, change=spoil)
            kept = (output / "last.pt").read_bytes() == good and not list(output.glob("*.part"))
            told = "can't be written" in ended.err and "Traceback" not in ended.err
            held += kept and told and ended.code == 2
            seen.append(f"{trouble}: code {ended.code}, last good file {'intact' if kept else 'LOST'}")
    return "disk full, output read-only", "last good file intact, clear message", 2, held, "; ".join(seen)


def damaged(folder: Path, count: int) -> Row:
    """Loads checkpoints that are cut at a random length, or have a random bit flipped."""
    held, seen = runs.in_child(runs.load_damaged, folder, count)
    return "checkpoint cut, or a bit flipped", "falls back, never a wrong resume", 2 * count, held, seen


def malicious(folder: Path, numbers: int) -> Row:
    held, seen = runs.in_child(runs.load_malicious, folder, numbers)
    return "pickled code, zip bomb, huge tensor", "refused, nothing run, memory bounded", 4, held, seen


def diverging(folder: Path) -> Row:
    planted = runs.train(folder, folder / "planted", change=runs.plant_nan((3, 7)))
    stays = runs.train(folder, folder / "stays", change=runs.plant_nan(range(3, 999)))
    fast = runs.train(folder, folder / "fast", "--learning_rate", 1000)
    two_told = planted.out.count("Skipped: ") == 2
    kept = [
        planted.code == 0 and two_told and runs.is_finite(folder / "planted"),
        stays.code == 3 and runs.is_finite(folder / "stays"),
        fast.code in (0, 3) and runs.is_finite(folder / "fast"),
    ]
    seen = f"2 NaN: code {planted.code}; NaN that stays: {stays.code}; rate 1000: {fast.code}"
    return "NaN planted, NaN that stays, rate 1e3", "skipped, named, counted; weights finite; 3", 3, sum(kept), seen


def refused(folder: Path) -> Row:
    codes = runs.not_finite_inputs(folder)
    held = sum(code == 2 for code in codes.values())
    return "inf in weights, NaN in annotations", "refused, code 2", len(codes), held, f"codes {list(codes.values())}"


def odd_images(folder: Path) -> Row:
    results = runs.odd_images(folder)
    words = "1x1, 1x10,000, 20,000x20,000, 0 bytes"
    held = sum(one.held for one in results)
    return words, "trains, or refuses; memory bounded", len(results), held, "; ".join(one.seen for one in results)


def tested(fault: str, promise: str, *arguments: str, **environment: str) -> Row:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    dots = [line.split(" ")[0] for line in ended.stdout.splitlines() if line.endswith("]") and "%" in line]
    cases = "".join(dots)
    seen = f"pytest {' '.join(arguments)}"
    return fault, promise, len(cases), cases.count("."), seen


def rows(folder: Path, small: bool) -> list[Callable[[], Row]]:
    own: list[Callable[[], Row]] = [
        lambda: killed(folder, 2 if small else 60),
        lambda: damaged(folder, 3 if small else 50),
        lambda: malicious(folder, 30_000_000 if small else 300_000_000),
        lambda: refused(folder),
        lambda: odd_images(folder),
    ]
    if small:
        return own
    return [
        *own,
        lambda: signalled(folder, 30),
        lambda: disk(folder),
        lambda: diverging(folder),
        *test_rows(),
    ]


def test_rows() -> list[Callable[[], Row]]:
    ranks, mutations = "tests/runtime/test_ranks.py", "2000"
    ends = "all end within a minute, naming one clear cause; restarted, equal up to rounding"
    one_fails = (
        f"{ranks}::test_all_ranks_end_when_one_fails",
        f"{ranks}::test_torchrun_brings_a_dead_rank_back_and_the_run_ends_equal",
    )
    large_batch = f"{ranks}::test_ranks_and_accumulation_train_what_one_large_batch_does"
    return [
        lambda: tested("2 ranks: killed, raising, hanging", ends, *one_fails),
        lambda: tested("1, 2, 3 ranks, odd-sized set", "losses within 1e-4, evaluation exact", large_batch),
        lambda: tested(
            f"{mutations} mutations of each kind of file",
            "clear error or sound result",
            "tests/faults/test_mutations.py",
            MUTATIONS=mutations,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few cases of each fault")
    args = parser.parse_args()
    broken, started = 0, time.monotonic()
    print("| fault | promise | held | seen | seconds |\n| --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runs.prepare(Path(folder))
        if args.small:
            narrowed.start()  # less to train and to save
        for row in rows(Path(folder), args.small):
            begun = time.monotonic()
            fault, promise, cases, held, seen = row()
            broken += cases - held + (cases == 0)
            seconds = time.monotonic() - begun
            print(f"| {fault} | {promise} | {held} of {cases} | {seen} | {seconds:.0f} |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s in all. {describe(torch.device('cpu'))}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

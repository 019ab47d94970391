"""Measures the time to save last.pt and to load it for --resume, and the slowdown from --deterministic.

python -m benchmarks.speed.saving --depth 50
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed import contestants
from benchmarks.speed.protocol import describe
from retinanet.checkpoints.checkpoint import Checkpoint, build_model
from retinanet.checkpoints.resume import LAST, Facts, load_saved, save_run
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import Architecture
from retinanet.runtime.device import make_deterministic
from retinanet.training.engine import train_steps
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState

SECONDS_BETWEEN = 60  # the least time between saves at the ends of epochs


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contestants.add_contest_flags(parser)
    args = parser.parse_args()
    device = args.device
    model = RetinaNet(Architecture(args.depth), args.num_classes).to(device)
    state = TrainingState(model, build_optimizer(model, "adam", 1e-5, 0.0), device)
    batch, losses = contestants.random_batch(args), losses_of(model, args.num_classes, device)

    def step() -> None:
        list(train_steps(state, [[batch]], rates=[1e-5], clip_norm=0.1, compute_losses=losses))
        state.skipped.take_new()  # waits for the device

    step()
    names = [str(label) for label in range(args.num_classes)]
    ids = list(range(args.num_classes))
    facts = Facts(device.type, "float32", False, "", "", args.batch_size, 1)
    with tempfile.TemporaryDirectory(dir=".") as folder:

        def save() -> None:
            checkpoint = Checkpoint(
                model.state_dict(), model.architecture, names, ids, 608, 1024, args.batch_size, 0, {}
            )
            save_run(checkpoint, state.to_plain(), facts, Path(folder))

        def load() -> None:
            saved = load_saved(Path(folder) / LAST)
            build_model(saved.checkpoint, saved.path)
            state.load_plain(saved.state, saved.path)

        saving = seconds_of(save, args.repeats)
        loading = seconds_of(load, args.repeats)
        size = (Path(folder) / LAST).stat().st_size
    print(f"last.pt of ResNet-{args.depth}: {size / 1e6:.0f} MB, saved in {saving:.2f} s, loaded in {loading:.2f} s")
    print(f"One save per minute: {saving / (SECONDS_BETWEEN + saving):.1%} of the time")
    plain = seconds_of(step, args.repeats)
    make_deterministic()
    step()
    print(f"--deterministic: a step takes {seconds_of(step, args.repeats) / plain:.2f} times as long")
    print(f"Medians of {args.repeats}. {describe(device)}")


if __name__ == "__main__":
    main()

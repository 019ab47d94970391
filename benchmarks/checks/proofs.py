"""Runs check_data --prove on broken and on correct sets, and counts how often it names the cause.

    python -m benchmarks.checks.proofs --coco_path $VOC5 --weights $R18

The broken sets (broken_sets.py) are made from the sample data, on which training starts from random weights, and from
--coco_path, on which it starts from --weights. Sets that differ only in val share one training run, which check_data
would repeat for each. Prints the outcome of each proof, and exits with code 1 if the outcomes are worse than required.
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from benchmarks.checks.broken_sets import BROKEN, HARD, NOISE, write_broken, write_hard
from benchmarks.speed.protocol import describe
from retinanet.check_data.proof import Trained, measure, train_small
from retinanet.check_data.proof_verdict import LEARNABLE, UNTOLD, Decision, decide, part_lines, refusal
from retinanet.commands.check_data import examine, reach_of
from retinanet.runtime.console import run, say
from retinanet.sample_data.scenes import write_sample_data
from retinanet.settings.check_data import check_data_settings
from retinanet.settings.options import whole_number

# The words that a cause must contain; | separates alternatives.
SAYS = {
    "classes of val shifted": "class ids in",
    "classes of val permuted": "class ids in",
    "val as centres": "fit as centres",
    "objects dealt to other images": "no reading|labels that don't follow",
    NOISE: "without edges",
}
LEAST_OF_SEEDS, LEAST_KINDS, LEAST_LEARNABLE = 2 / 3, 4, 2
SAMPLE, PHOTOGRAPHS = "sample data", "photographs"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True, help="a folder of photographs with the class car")
    parser.add_argument("--weights", required=True, help="weights for the photographs, as in check_data")
    parser.add_argument("--seeds", type=whole_number(0), nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", help="the names of the sets or kinds to try")
    args = parser.parse_args(argv)
    say(describe(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with redirect_stdout(StringIO()):
            write_sample_data(folder / "sample", 0, {"train": 400, "val": 80})
        sources = {SAMPLE: (folder / "sample", "none"), PHOTOGRAPHS: (args.coco_path, args.weights)}
        is_good = True
        for name, (source, weights) in sources.items():
            if args.only is None or name in args.only:
                is_good &= try_broken(name, source, weights, args.seeds, folder)
        learnable = set()
        for kind in HARD:
            if args.only is None or kind in args.only or "hard" in args.only:
                place = folder / kind
                write_hard(args.coco_path, place, kind, args.seeds[0])
                told = proved(kind, place, "none" if kind == "80 classes" else args.weights, args.seeds[0])[0].verdict
                is_good &= told in (LEARNABLE, UNTOLD)
                learnable |= {kind} & ({kind} if told == LEARNABLE else set())
        if args.only is None or "hard" in args.only:
            is_good &= len(learnable) >= LEAST_LEARNABLE
    return 0 if is_good else 1


def try_broken(name: str, source: Path, weights: str, seeds: list[int], folder: Path) -> bool:
    """Runs --prove on a correct set and on broken sets made from it. Returns True if the outcomes are good enough."""
    named: Counter[str] = Counter()
    is_learnable = True
    for seed in seeds:
        right, network = proved(f"{name}, as it is", source, weights, seed)
        is_learnable &= right.verdict == LEARNABLE
        for kind, (_, change_of_train) in BROKEN.items():
            place = folder / f"{name} {kind} {seed}"
            write_broken(source, place, kind, seed)
            shared = None if change_of_train or kind == NOISE else network
            told, _ = proved(f"{name}, {kind}", place, weights, seed, shared)
            named[kind] += any(words in cause.says for cause in told.causes for words in SAYS[kind].split("|"))
    num_named = sum(named[kind] >= LEAST_OF_SEEDS * len(seeds) for kind in BROKEN)
    say(f"{name}: causes named, of {len(seeds)} seeds: {dict(named)}")
    return is_learnable and num_named >= LEAST_KINDS


def proved(
    title: str, folder: Path, weights: str, seed: int, network: Trained | None = None
) -> tuple[Decision, Trained | None]:
    """Runs check_data's proof on a data folder; `network`, if given, must have been trained on its training set."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as output:
        flags = ["--coco_path", str(folder), "--sets", "train", "val", "--picture_path", f"{output}/check.png"]
        settings = check_data_settings(flags)
        with redirect_stdout(StringIO()):
            examined = examine(settings)
            if cause := refusal(examined.findings, examined.contents[0]):
                return Decision("refused", [cause]), None
            train, val = (checked.dataset for checked in examined.sets)
            looked = time.process_time()
            network = network or train_small(train, weights, seed)
            proof = measure(network, val)
            decision = decide(proof, examined.judged, examined.misfits, *reach_of(settings, train))
    say(
        f"{title}, seed {seed}: {decision.verdict}",
        *part_lines(proof),
        *(f"  cause: {cause.says}" for cause in decision.causes),
        f"  CPU seconds: {looked - started:.0f} for the checks, {time.process_time() - looked:.0f} for the proof",
    )
    return decision, network


if __name__ == "__main__":
    run(main)

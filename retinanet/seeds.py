"""The seeds of a command: one drawn for all ranks, or several, and how far their numbers lie apart."""

import argparse
import secrets
import statistics
from math import isnan, nan

from retinanet.annotation_entries import is_id
from retinanet.command_line import say
from retinanet.distributed import Ranks
from retinanet.errors import UserError
from retinanet.printable import markdown_cell
from retinanet.resume import SavedRun
from retinanet.train_flags import RANDOM, SEED


def settled_seed(given: int | str, saved: SavedRun | None, ranks: Ranks) -> int:
    """`given` by --seed; where that is RANDOM, the seed of the `saved` run, or one that rank 0 draws for all."""
    if given != RANDOM:
        return int(given)
    if saved is None:
        seed = ranks.from_first(lambda: secrets.randbelow(2**31))
        say(f"--seed random: drew {seed}")
        return seed
    seed = saved.checkpoint.settings.get("seed", SEED)
    if not is_id(seed) or seed < 0:
        raise UserError(f"{saved.path}: its run has the seed {seed!r}. Start a new run without --resume.")
    say(f"--seed random: resuming with the saved run's {seed}")
    return seed


def runs_of(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The flags of each run: with --seeds its seed, and a folder of its own below --output_path."""
    if not args.seeds:
        return [args]
    folder = args.output_path
    return [
        argparse.Namespace(**{**vars(args), "seed": seed, "output_path": folder / f"seed{seed}"}) for seed in args.seeds
    ]


def tell_spread(numbers: dict[int, dict[str, float]]) -> None:
    """Print the mean and the standard deviation of every number over the seeds, as a Markdown table."""
    names = list(next(iter(numbers.values())))
    say(f"Over {len(numbers)} seeds, with the standard deviation of one run:")
    say(f"| number | mean | deviation | {' | '.join(f'seed {seed}' for seed in numbers)} |")
    say(f"| --- | {' | '.join(['---:'] * (2 + len(numbers)))} |")
    for name in names:
        values = [one[name] for one in numbers.values()]
        known = [value for value in values if not isnan(value)]
        mean = statistics.mean(known) if known else nan
        deviation = statistics.stdev(known) if len(known) > 1 else nan
        cells = " | ".join("-" if isnan(value) else f"{value:.4f}" for value in (mean, deviation, *values))
        say(f"| {markdown_cell(name)} | {cells} |")

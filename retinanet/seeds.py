"""The same training once with each of several seeds, and how far the numbers lie apart."""

import argparse
import statistics
from math import isnan, nan

from retinanet.command_line import say
from retinanet.printable import markdown_cell


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

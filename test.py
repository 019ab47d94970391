"""Evaluate a checkpoint on a set and write its result file, or compare two result files."""

from retinanet.runtime.console import run
from retinanet.settings.evaluate import evaluate_settings


def main(argv: list[str] | None = None) -> int:
    settings = evaluate_settings(argv)
    from retinanet.commands.evaluate import (
        evaluate_or_compare,  # after the flags are read: PyTorch takes seconds to import
    )

    return evaluate_or_compare(settings)


if __name__ == "__main__":
    run(main)

"""Evaluate a checkpoint on a set and write its result file, or compare two result files."""

from retinanet.cli.test_flags import evaluation_settings
from retinanet.runtime.console import run


def main(argv: list[str] | None = None) -> int:
    settings = evaluation_settings(argv)
    from retinanet.commands.evaluate import (
        evaluate_or_compare,  # after the flags are read: PyTorch takes seconds to import
    )

    return evaluate_or_compare(settings)


if __name__ == "__main__":
    run(main)

"""Evaluate a checkpoint on a set and write its result file, or compare two result files."""

from retinanet.runtime.console import run_command
from retinanet.settings.evaluate import evaluate_settings

if __name__ == "__main__":
    run_command(evaluate_settings, "evaluate")

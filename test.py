"""Evaluates a checkpoint on a set and writes a result file, or evaluates or compares existing result files."""

from retinanet.runtime.console import run_command
from retinanet.settings.evaluate import evaluate_settings

if __name__ == "__main__":
    run_command(evaluate_settings, "evaluate")

"""Check a result file before it is handed in, correct and pack it."""

from retinanet.runtime.console import run_command
from retinanet.settings.submission import submission_settings

if __name__ == "__main__":
    run_command(submission_settings, "submission")

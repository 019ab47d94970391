"""Checks a COCO result file before submission; can also repair and zip it."""

from retinanet.runtime.console import run_command
from retinanet.settings.submission import submission_settings

if __name__ == "__main__":
    run_command(submission_settings, "submission")

"""Finds labels that are probably wrong, with detectors that were not trained on the images whose labels they check."""

from retinanet.runtime.console import run_command
from retinanet.settings.check_labels import check_labels_settings

if __name__ == "__main__":
    run_command(check_labels_settings, "check_labels")

"""Checks a dataset before training."""

from retinanet.runtime.console import run_command
from retinanet.settings.check_data import check_data_settings

if __name__ == "__main__":
    run_command(check_data_settings, "check_data")

"""Writes a small dataset in COCO format without downloading anything."""

from retinanet.runtime.console import run_command
from retinanet.settings.sample_data import sample_data_settings

if __name__ == "__main__":
    run_command(sample_data_settings, "sample_data")

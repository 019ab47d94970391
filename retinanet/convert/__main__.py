"""Converts a dataset to this project's layout or another format, or splits it into sets."""

from retinanet.runtime.console import run_command
from retinanet.settings.convert import convert_settings

if __name__ == "__main__":
    run_command(convert_settings, "convert")

"""Exports a checkpoint for other programs."""

from retinanet.runtime.console import run_command
from retinanet.settings.export import export_settings

if __name__ == "__main__":
    run_command(export_settings, "export")

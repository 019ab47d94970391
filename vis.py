"""Draws the objects and detections in images, or the loss and AP curves of runs."""

from retinanet.runtime.console import run_command
from retinanet.settings.draw import draw_settings

if __name__ == "__main__":
    run_command(draw_settings, "draw")

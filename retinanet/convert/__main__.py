"""Convert a data set into the suite's layout, or split one."""

from retinanet.runtime.console import run_command
from retinanet.settings.convert import convert_settings

if __name__ == "__main__":
    run_command(convert_settings, "convert")

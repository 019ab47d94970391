"""Python imports this at its start if this folder is on PYTHONPATH: a command then has the narrow ResNet-18."""

import sys
from pathlib import Path

sys.path += map(str, (Path(__file__).parents[3], Path(__file__).parents[2]))

from support.narrow import narrowed

narrowed.start()

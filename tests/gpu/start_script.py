"""Start a script with the pretended CUDA library loaded: python -m gpu.start_script SCRIPT|-m MODULE ARGUMENTS"""

import os
import sys
import tempfile
from pathlib import Path

from gpu.build import built, environment_with, lacking

if __name__ == "__main__":
    if reason := lacking():
        sys.exit(f"No pretended GPU: {reason}")
    folder = Path(tempfile.gettempdir()) / f"pretended_cuda_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.execve(sys.executable, [sys.executable, "-m", "gpu.run_script", *sys.argv[1:]], environment_with(built(folder)))

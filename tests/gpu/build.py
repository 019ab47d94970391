"""Builds the pretended CUDA library with gcc, from the CUDA headers that pip's Triton brings."""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "pretended_cuda.c"
CUDA_NAME = re.compile(r"(__cuda|cuda|cu)[A-Z]\w*")


def lacking() -> str | None:
    """What this machine lacks to run the tests of this folder."""
    for program in ("gcc", "nm"):
        if not shutil.which(program):
            return f"no {program}, which builds the pretended CUDA"
    if not (_folder_of("torch") / "lib" / "libtorch_cuda.so").exists():
        return "PyTorch is not a CUDA build for Linux"
    if not _headers().exists():
        return "no package triton with CUDA's headers"
    return None


def built(folder: Path) -> Path:
    """The library, built into `folder` unless it is there for this source and these versions.

    RuntimeError, with what gcc says, where that fails.
    """
    versions = [importlib.metadata.version(name) for name in ("torch", "torchvision", "triton")]
    parts = (SOURCE.read_text(), Path(__file__).read_text(), *versions)
    target = folder / hashlib.sha256("".join(parts).encode()).hexdigest()[:16] / "libcuda.so.1"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            os.replace(_compile(Path(work)), target)  # two processes may build at once
    return target


def environment_with(library: Path) -> dict[str, str]:
    """The environment of a process that finds two pretended GPUs."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "PRETENDED_GPUS": "2", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    for name in ("CUDA_VISIBLE_DEVICES", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    return environment


def _compile(work: Path) -> Path:
    pretended, rest, library = work / "pretended.o", work / "rest.c", work / "library"
    _run("gcc", "-O1", "-fPIC", "-c", f"-I{_headers().parent}", str(SOURCE), "-o", str(pretended))
    missing = sorted(_symbols("--undefined-only", *_users()) - _symbols("--defined-only", pretended))
    answers = (f'int {name}(void) {{ return pretended_not_supported("{name}"); }}\n' for name in missing)
    rest.write_text("int pretended_not_supported(const char *name);\n" + "".join(answers))
    # By this name the libraries that ask for the driver find that it is loaded already.
    flags = ("-shared", "-fPIC", "-fno-builtin", "-Wl,-soname,libcuda.so.1")
    _run("gcc", *flags, str(pretended), str(rest), "-o", str(library), "-lpthread", "-ldl")
    return library


def _users() -> list[Path]:
    """The libraries that call CUDA."""
    return [*(_folder_of("torch") / "lib").glob("lib*.so"), *_folder_of("torchvision").glob("*.so")]


def _symbols(kind: str, *files: Path) -> set[str]:
    """The names of CUDA's that `files` define, or need and don't define."""
    dynamic = ["-D"] if kind == "--undefined-only" else []
    listed = _run("nm", *dynamic, kind, *map(str, files))
    names = {line.split()[-1].split("@")[0] for line in listed.splitlines() if len(line.split()) > 1}
    return {name for name in names if CUDA_NAME.fullmatch(name)}


def _run(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{run.stderr}")
    return run.stdout


def _headers() -> Path:
    return _folder_of("triton") / "backends" / "nvidia" / "include" / "cuda_runtime_api.h"


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else Path("/nowhere")

"""pip install . in an environment of its own: the package without the scripts."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import retinanet

ROOT = Path(__file__).parent.parent
SOURCES = ("retinanet", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
COMMANDS = ("predict", "export", "convert", "check_data", "check_labels", "sample_data")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of a fresh environment with the package, and with this one's libraries."""
    folder = tmp_path_factory.mktemp("installed")
    copy = folder / "source"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = folder / "env" / "lib" / version / "site-packages"
    (libraries / "outer.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, copy], check=True)
    return python


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_run(python, tmp_path, command):
    ran = run(python, tmp_path, "-m", f"retinanet.{command}", "--help")

    assert ran.startswith(f"usage: python -m retinanet.{command}")


def test_the_version_is_the_packages(python, tmp_path):
    code = (
        "import importlib.metadata, retinanet; print(importlib.metadata.version('retinanet') == retinanet.__version__)"
    )

    assert run(python, tmp_path, "-c", code) == "True\n"
    assert run(python, tmp_path, "-m", "retinanet.predict", "--version") == f"retinanet {retinanet.__version__}\n"


def test_the_detector_is_installed_and_the_scripts_are_not(python, tmp_path):
    code = "from retinanet import Detector; import retinanet, test, importlib.util as u; print(retinanet.__file__)"
    code += "; print(test.__file__); print([name for name in ('train', 'vis', 'test_submission') if u.find_spec(name)])"

    ours, pythons, scripts = run(python, tmp_path, "-c", code).splitlines()

    assert "site-packages" in ours
    assert pythons.endswith("test/__init__.py")  # Python's own
    assert scripts == "[]"


def test_the_parts_of_the_page_are_installed(python, tmp_path):
    code = "from retinanet.reports.html_page import PARTS, SCRIPTS, STYLES; print(PARTS)"
    code += "; print(*sorted(path.name for path in PARTS.iterdir())); print(*sorted(SCRIPTS + STYLES))"

    place, installed, joined = run(python, tmp_path, "-c", code).splitlines()

    assert "site-packages" in place
    assert installed == joined


def run(python: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout

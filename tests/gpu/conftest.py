"""The tests of each file here run in a pytest of their own, which is started with the pretended CUDA library loaded.

CUDA's library is chosen when a process starts, so the process that collects the tests can't run them. It
starts one that can, for all tests of a file at once, and passes its reports on as if they were its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu.build import built, lacking
from gpu.on_host import OnHost

ROOT = Path(__file__).parent.parent.parent
REPORTS = "PRETENDED_REPORTS"  # in the environment of the process with the library: the file that takes its reports
HERE = Path(__file__).parent
LACKING = lacking()
reports_of_file = pytest.StashKey[dict]()


def pretended_environment(library: Path, **more: str) -> dict[str, str]:
    """The environment of a process that finds two pretended GPUs."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "PRETENDED_GPUS": "2", "OMP_NUM_THREADS": "1", **more}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    for name in ("CUDA_VISIBLE_DEVICES", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    return environment


def pytest_collection_modifyitems(items):
    for item in items:
        if LACKING and item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason=LACKING))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """Instead of running `item`, pass on what the other process reports of it."""
    # pytest calls this for the tests of other folders too.
    if LACKING or REPORTS in os.environ or item.path.parent != HERE:
        return None
    reports = _reports(item)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports.get(item.nodeid, [_crashed(item, reports["output"])]):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report):
    if REPORTS in os.environ:
        content = _config.hook.pytest_report_to_serializable(config=_config, report=report)
        with open(os.environ[REPORTS], "a") as lines:
            lines.write(json.dumps(content) + "\n")


def pytest_configure(config):
    global _config
    _config = config


def _reports(item) -> dict:
    """The reports of all tests of the item's file by their ids, and what the process printed."""
    found = item.config.stash.setdefault(reports_of_file, {})
    if item.path not in found:
        found[item.path] = _run_file(item)
    return found[item.path]


def _run_file(item) -> dict:
    ids = [other.nodeid for other in item.session.items if other.path == item.path]
    library = built(item.config.cache.mkdir("pretended_cuda"))
    file = item.config.cache.mkdir("pretended_reports") / f"{os.getpid()}_{item.path.stem}"
    file.write_text("")
    most = f"--maxfail={item.config.option.maxfail or 0}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", most, *ids],
        cwd=item.config.rootpath,
        env=pretended_environment(library, **{REPORTS: str(file)}),
        capture_output=True,
        text=True,
        check=False,
    )
    reports: dict = {"output": run.stdout + run.stderr}
    for line in file.read_text().splitlines():
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=json.loads(line))
        reports.setdefault(report.nodeid, []).append(report)
    file.unlink()
    return reports


def _crashed(item, output: str) -> pytest.TestReport:
    text = f"the process with the pretended GPU ended before it reported on this test:\n{output[-3000:]}"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")


@pytest.fixture
def host():
    """The operations on the host, in force during a test."""
    with OnHost() as mode:
        yield mode
    torch.cuda.set_sync_debug_mode("default")

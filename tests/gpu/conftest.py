"""The tests of each file here run in a pytest of their own, which is started with the pretended CUDA library loaded.

CUDA's library is chosen when a process starts, so the process that collects the tests can't run them. It
starts one that can (serve_files.py), which runs all tests of a file at once in a process that it forks, and passes the
reports on as if they were its own.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu.build import built, environment_with, lacking
from gpu.on_host import OnHost

REPORTS = "PRETENDED_REPORTS"  # in the environment of the process with the library: the file that takes its reports
HERE = Path(__file__).parent
LACKING = lacking()
reports_of_file = pytest.StashKey[dict]()
server_of_session = pytest.StashKey[subprocess.Popen]()


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
    own = reports.get(item.nodeid, [])
    is_whole = any(report.when == "teardown" for report in own)
    for report in own if is_whole else [*own, _crashed(item, reports["output"])]:
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
    folder = item.config.cache.mkdir("pretended_reports")
    file, output = (folder / f"{os.getpid()}_{item.path.stem}{end}" for end in ("", "_output"))
    file.write_text("")
    output.write_text("")
    most = f"--maxfail={item.config.option.maxfail or 0}"
    words = ["-n", "0", "-p", "no:cacheprovider", most, *ids]
    server = _server(item.config)
    with contextlib.suppress(BrokenPipeError):  # of one that could not start: then no test has a report
        server.stdin.write(json.dumps({"words": words, "reports": str(file), "output": str(output)}) + "\n")
        server.stdin.flush()
    server.stdout.readline()
    reports: dict = {"output": output.read_text()}
    for line in file.read_text().splitlines():
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=json.loads(line))
        reports.setdefault(report.nodeid, []).append(report)
    file.unlink()
    output.unlink()
    return reports


def _server(config) -> subprocess.Popen:
    """The process with the pretended GPUs that runs files."""
    if server_of_session not in config.stash:
        library = built(config.cache.mkdir("pretended_cuda"))
        config.stash[server_of_session] = subprocess.Popen(
            [sys.executable, "-m", "gpu.serve_files"],
            cwd=config.rootpath,
            env=environment_with(library),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    return config.stash[server_of_session]


def pytest_unconfigure(config):
    if server := config.stash.get(server_of_session, None):
        with contextlib.suppress(BrokenPipeError):
            server.communicate()  # it ends at the end of its stdin


def _crashed(item, output: str) -> pytest.TestReport:
    text = f"the process with the pretended GPU ended before it reported on this test:\n{output[-3000:]}"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")


@pytest.fixture(scope="module", autouse=True)
def _narrow_network(narrow_network):
    """Each operation of a layer is checked, whatever its width."""


@pytest.fixture
def host():
    """The operations on the host, in force during a test."""
    with OnHost() as mode:
        yield mode
    torch.cuda.set_sync_debug_mode("default")

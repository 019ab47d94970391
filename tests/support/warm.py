"""Runs commands in processes forked from a server that has imported PyTorch, in a tenth of the time of a new process.

A command is a script, -c or -m, with arguments, as subprocess would run it after `sys.executable`. Only a new process
tests the interpreter's own start and end, and the imports of a command's children.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from support.narrow import narrowed

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["torch", "torchvision", "torch.distributed.run", "tqdm"])


class Process:
    """A running command, with the part of the subprocess.Popen interface that tests need."""

    def __init__(
        self,
        words: Sequence[Any],
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        new_session: bool = False,
        is_narrow: bool = False,
    ) -> None:
        (self.out, out), (self.err, err) = FORKING.Pipe(duplex=False), FORKING.Pipe(duplex=False)
        how = ([str(word) for word in words], environment or dict(os.environ), folder, new_session, is_narrow)
        self.process = FORKING.Process(target=_become, args=(out, err, *how))
        self.process.start()
        out.close()
        err.close()
        self.stdout, self.stderr = _text_of(self.out), _text_of(self.err)
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Returns the rest of stdout and stderr. Kills the process after `timeout` seconds."""
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except BaseException:
                self.kill()
                raise
        return texts[0].result(), texts[1].result()


def finished(words: Sequence[Any], timeout: float | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, like subprocess.run with captured output."""
    process = Process(words, **how)
    out, err = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess([*map(str, words)], process.returncode, out, err)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def started_ranks(num_ranks: int, words: Sequence[Any], environment: dict[str, str]) -> list[Process]:
    """Starts a command as all ranks of this machine, with the variables that torchrun sets."""
    meeting = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    return [
        Process(words, environment={**environment, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(num_ranks)
    ]


def _text_of(connection: Connection) -> TextIO:
    return os.fdopen(os.dup(connection.fileno()), encoding="utf-8", errors="backslashreplace")


def _become(
    out: Connection,
    err: Connection,
    words: list[str],
    environment: dict[str, str],
    folder: Path | None,
    new_session: bool,
    is_narrow: bool,
) -> None:
    for connection, descriptor in ((out, 1), (err, 2)):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    multiprocessing.set_start_method(None, force=True)  # otherwise the server would fork the command's workers too
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if new_session:
        os.setsid()
    if folder:
        os.chdir(folder)
    if is_narrow:
        narrowed.start()
    _run_as_main(words)


def _run_as_main(words: list[str]) -> None:
    kind, *rest = words
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")

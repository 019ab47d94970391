"""Runs a script: prints whole lines to stdout and the log, and ends with an exit code and at most one error message."""

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from retinanet.runtime.errors import Diverged, OutOfResources, Stopped, UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.printable import printable
from retinanet.runtime.resource_errors import memory_explained, worker_explained
from retinanet.runtime.signals import STOP, end_workers
from retinanet.runtime.streams import STDOUT, complain, open_closed

LINE_TIME = "%Y-%m-%d %H:%M:%S "  # the start of a line with --log_time


def run_command(read_flags: Callable[[], Any], name: str) -> None:
    """Runs the command `name` with the settings from `read_flags`, and exits with the command's exit code (see run).

    The command is imported after the flags are read, because importing PyTorch takes seconds.
    """

    def main() -> int:
        inputs = importlib.import_module("retinanet.inputs")
        settings = inputs.checked_inputs(read_flags())
        command: Callable[[Any], int] = getattr(importlib.import_module(f"retinanet.commands.{name}"), name)
        return command(settings)

    run(main)


def run(main: Callable[[], int]) -> None:
    """Runs a script's `main` and exits with its code.

    0 means success; 1, a negative result (such as findings) or a bug; 2, a mistake by the user; 3, that training
    diverged or that check_data reached no verdict; 4, that memory ran out or a process died; 128 + N, that signal N
    ended the run. Only a bug prints a traceback; any other failure prints at most one message.
    """
    open_closed()
    try:
        with STOP.heeded():
            code = _end_workers_after(main)
        sys.exit(code)
    except (UserError, Diverged, OutOfResources) as error:
        _end(str(error), error.exit_code)
    except Stopped as stop:
        _exit(stop.exit_code)
    except BrokenPipeError:  # the program that reads our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a file that can't be accessed: no permission, a name too long, a failing disk
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}. Check the path and its permissions.", UserError.exit_code)


def _end_workers_after(main: Callable[[], int]) -> int:
    try:
        with memory_explained(), worker_explained():
            return main()
    finally:
        if multiprocessing.active_children():
            end_workers()  # otherwise the exit would wait for a worker that hangs or was left by an unfinished iterator


def _end(message: str, exit_code: int) -> NoReturn:
    where = f" (rank {_rank()})" if _rank() else ""
    complain(f"{_name_of_script()}: error{where}: {printable(message)}")
    _exit(exit_code)


def _name_of_script() -> str:
    script = Path(sys.argv[0])
    return printable(script.parent.name if script.name == "__main__.py" else script.name)  # python -m retinanet.predict


def _exit(code: int) -> NoReturn:
    """Exits with `code`. Under torchrun, skips Python's clean-up, in which NCCL may abort or wait for other ranks."""
    distributed = sys.modules.get("torch.distributed")  # not imported here: --help would have to wait for PyTorch
    if distributed and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _rank() -> int:
    """Returns this process's rank among the processes that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def say(*lines: str, on_terminal: Sequence[str] | None = None) -> None:
    """On rank 0, prints and flushes lines to stdout, above any progress bar, and to the log.

    On a terminal, stdout shows `on_terminal` instead, if it is given; the log always gets `lines`. Each argument
    becomes one line, whatever it contains: a name from a file may contain line feeds and escape sequences. Characters
    that stdout can't encode are escaped.
    """
    if _rank():
        return
    shown = on_terminal if on_terminal is not None and sys.stdout.isatty() else lines
    STDOUT.write(_text(shown))
    LOG.write(_text(lines))


def warn(line: str) -> None:
    """Prints a line to stderr, prefixed with the script's name, and writes it to the log."""
    complain(f"{_name_of_script()}: {printable(line)}")
    LOG.write(_text([line]))


def _text(lines: Sequence[str]) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    start = time.strftime(LINE_TIME) if STDOUT.is_timed else ""
    text = "".join(f"{start}{printable(line)}\n" for line in lines)
    return text.encode(encoding, "backslashreplace").decode(encoding)

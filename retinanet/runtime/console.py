"""How a script speaks and ends: whole lines on stdout and the log, one message and an exit code."""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from retinanet.runtime.errors import Diverged, OutOfResources, Stopped, UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.printable import printable
from retinanet.runtime.resource_errors import memory_explained, worker_explained
from retinanet.runtime.signals import STOP, end_workers
from retinanet.runtime.streams import STDOUT, complain


def run_command(read_flags: Callable[[], Any], name: str) -> None:
    """Runs the command `name` with the settings that `read_flags` returns, and exits with its code: see run.

    The command is imported once the flags are read, as PyTorch takes seconds to import.
    """

    def main() -> int:
        settings = read_flags()
        command: Callable[[Any], int] = getattr(importlib.import_module(f"retinanet.commands.{name}"), name)
        return command(settings)

    run(main)


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its code.

    0 done, 1 findings or a bug, 2 a user's mistake, 3 diverged, 4 out of memory or a dead process, 128 + the number of
    a signal. All but a bug end in one message.
    """
    try:
        with STOP.heeded():
            code = _end_workers_after(main)
        sys.exit(code)
    except (UserError, Diverged, OutOfResources) as error:
        _end(str(error), error.exit_code)
    except Stopped as stop:
        _exit(stop.exit_code)
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a file that can't be reached: no permission, a name too long, a disk that fails
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}. Check the path and its permissions.", UserError.exit_code)


def _end_workers_after(main: Callable[[], int]) -> int:
    try:
        with memory_explained(), worker_explained():
            return main()
    finally:
        if multiprocessing.active_children():
            end_workers()  # or the exit would wait for one that hangs, or that an iterator cut short has left


def _end(message: str, exit_code: int) -> NoReturn:
    where = f" (rank {_rank()})" if _rank() else ""
    script = Path(sys.argv[0])
    name = script.parent.name if script.name == "__main__.py" else script.name  # python -m retinanet.check_data
    complain(f"{printable(name)}: error{where}: {printable(message)}")
    _exit(exit_code)


def _exit(code: int) -> NoReturn:
    """Exit with `code`; a rank at once, as at the interpreter's end NCCL may wait for another rank, or abort."""
    distributed = sys.modules.get("torch.distributed")  # not imported here: it would make --help wait for PyTorch
    if distributed and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _rank() -> int:
    """The number of this process among torchrun's."""
    return int(os.environ.get("RANK", 0))


def say(*lines: str) -> None:
    """Print lines to stdout and the log, flushed, and not into a progress bar's middle; at rank 0 alone.

    Each argument is one line, whatever it contains: a name from a file may hold line feeds and escape sequences.
    Characters that stdout's encoding lacks are escaped.
    """
    if _rank():
        return
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(map(printable, lines)).encode(encoding, "backslashreplace").decode(encoding)
    STDOUT.write(f"{text}\n")
    LOG.write(f"{text}\n")

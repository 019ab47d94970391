"""Runs torchrun, but ends with the ranks' own messages and exit code.

    python -m retinanet.launch --nproc_per_node 8 train.py --coco_path data ...

On its own, torchrun ends with a traceback and code 1, whatever the ranks' codes are. On SIGUSR1, which clusters send
shortly before a job's time is up, torchrun ends without passing the signal on to the ranks; this launcher passes it on.
"""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from retinanet.runtime.errors import OutOfResources

FORWARDED_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")


HELP = """\
usage: python -m retinanet.launch [torchrun's flags] SCRIPT [the script's flags]

Start train.py in several processes, usually one per GPU, on one machine or several. This is torchrun, except that it
ends with the messages and the exit code of the processes, passes SIGUSR1 on to them, and ignores SIGHUP under nohup.

  python -m retinanet.launch --nproc_per_node 8 --max-restarts 3 train.py --coco_path data --resume

the most used of torchrun's flags (torchrun --help lists all):
  --nproc_per_node N          number of processes on this machine
  --max-restarts N            how many times to restart the processes if one fails (default: 0)
  --nnodes N                  number of machines (default: 1)
  --rdzv_backend c10d --rdzv_endpoint HOST:PORT --rdzv_id ID
                              how the machines find each other; the same on all of them

docs/many_gpus.md has more examples. python train.py --help lists the script's flags.
"""


def main() -> int:
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    # A signal that is already ignored, such as SIGHUP under nohup, would end the ranks if it were forwarded.
    forwarded = [name for name in FORWARDED_SIGNALS if signal.getsignal(signal.Signals[name]) != signal.SIG_IGN]
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", ",".join(forwarded))  # sets torchrun's flag --signals-to-handle
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each of these loggers sets its own level
            logging.getLogger(name).setLevel(logging.ERROR)  # otherwise they log a warning per signal and process
    try:
        torchrun()
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        # After the first failure, torchrun itself ends the other ranks with SIGTERM, which explains nothing.
        codes = [failure.exitcode for failure in failed.failures.values()]
        codes = [first.exitcode, *(code for code in codes if code not in (-signal.SIGTERM, 128 + signal.SIGTERM))]
        # If a rank ended because it lost another rank, the lost rank's code explains more.
        code = min(codes, key=lambda code: code == OutOfResources.exit_code)
        return code if code >= 0 else 128 - code  # a negative code is a signal's number
    except ValueError as error:  # such as --nproc_per_node gpu without a GPU
        print(f"launch: error: {error} Correct torchrun's flags; --help lists them.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

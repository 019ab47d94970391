"""torchrun, with an end in as few words as the ranks' own, and with their exit code.

    python -m retinanet.launch --nproc_per_node 8 train.py --coco_path data ...

torchrun itself ends in a traceback and code 1 whatever a rank ends with, and a cluster's SIGUSR1 ends it without a word
to the ranks.
"""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from retinanet.runtime.errors import OutOfResources

PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")


def main() -> int:
    # What is ignored already, as SIGHUP under nohup, would end the ranks if it were passed on.
    heeded = [name for name in PASSED_ON if signal.getsignal(signal.Signals[name]) != signal.SIG_IGN]
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", ",".join(heeded))  # torchrun's name for its flag --signals-to-handle
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.ERROR)  # or they warn of each signal to each process
    try:
        torchrun()
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        # A rank that ended because it lost another says less than the other.
        code = min(codes, key=lambda code: code == OutOfResources.exit_code)
        return code if code >= 0 else 128 - code  # below 0: a signal's number
    return 0


if __name__ == "__main__":
    sys.exit(main())

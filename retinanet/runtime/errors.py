"""How a run can end before its time; the scripts turn each into one message and an exit code."""


class UserError(ValueError):
    """A mistake that the user can mend; its message names the file, the thing and the fix.

    The scripts print it without a traceback and exit with code 2. Anything that is raised and not in this file is a
    bug and keeps its traceback, with code 1.
    """

    exit_code = 2


class DataFault(UserError):
    """A mistake in one entry or one image file of a data set, of a `kind` that check_data/findings.py explains."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


class Diverged(Exception):
    """Training in which losses or gradients stay not finite; the message says what to try."""

    exit_code = 3


class OutOfResources(Exception):
    """Memory that ran out, or a process of the run that died or hangs; the message says which and what helps."""

    exit_code = 4


class Stopped(BaseException):
    """A signal that asked the run to stop. Not an Exception: what handles faults must not take it for one."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        return 128 + self.signal_number  # what a shell says of a process that the signal ended

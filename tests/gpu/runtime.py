"""Reads the counters of the pretended runtime."""

import ctypes


class Runtime:
    """The counters of the pretended runtime in this process."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")  # by its name: it is loaded

    def _count(self, name: str) -> int:
        return ctypes.c_long.in_dll(self.cuda, f"pretended_{name}").value

    @property
    def waits(self) -> int:
        return self._count("waits")

    @property
    def launches(self) -> int:
        return self._count("launches")

    @property
    def refused(self) -> int:
        return self._count("refused")

    def is_touched(self, device: int) -> bool:
        return bool((ctypes.c_int * 8).in_dll(self.cuda, "pretended_touched")[device])

    def bytes_used(self, device: int) -> int:
        return (ctypes.c_long * 8).in_dll(self.cuda, "pretended_used")[device]

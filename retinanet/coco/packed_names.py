"""A million file names without a million Python objects."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PackedNames(Sequence[str]):
    """Texts in two arrays: their bytes, and where each ends.

    A Python object holds its reference count, so a loader worker that reads it gets its own copy of that page of
    memory. Arrays stay shared.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        """`text` uint8 holds UTF-8, `ends` int64 [N] where in it each name ends."""
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "PackedNames":
        encoded = [name.encode() for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        text, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield text[start:end].decode()
            start = end

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes().decode()

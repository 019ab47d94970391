"""Files written so that no reader ever sees half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write to, which becomes `path` once all is written and on the disk.

    It lies beside its place until then: a kill or a full disk leaves the old file or the new one. Raises OSError.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise

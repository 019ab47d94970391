"""Names the runs of several logs, so that no two have the same name in a table or a picture."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.reports.log_reader import RunLog
from retinanet.runtime.log_file import ENDING


def run_names(logs: Sequence[RunLog]) -> list[str]:
    """Returns the name of each run: its output folder, or its log if the folder is unknown or not unique.

    The name consists of as many of the path's last parts as are needed to make it unique: seed0, or a/seed0 if there is
    a b/seed0. Paths with the same parent folder get names with the same number of parts. The output folder in a log of
    test.py is the training run's, so such a log goes by its own file name if the training run's log is also among the
    `logs`.
    """
    folders = [output_folder(log) for log in logs]
    trained = [folder for log, folder in zip(logs, folders, strict=True) if log.has_losses]
    paths = []
    for log, folder in zip(logs, folders, strict=True):
        if folder and (trained if log.has_losses else folders).count(folder) == 1:
            paths.append(folder)
        else:
            paths.append(log.path.with_name(log.path.name.removesuffix(ENDING)))
    needed = [_parts_needed(path, [*paths[:row], *paths[row + 1 :]]) for row, path in enumerate(paths)]
    of_folder: dict[Path, int] = {}
    for path, length in zip(paths, needed, strict=True):
        of_folder[path.parent] = max(length, of_folder.get(path.parent, 0))
    return [str(Path(*path.parts[-of_folder[path.parent] :])) for path in paths]


def output_folder(log: RunLog) -> Path | None:
    """Returns the run's output folder according to its settings; None if it isn't known or has no name."""
    folder = log.settings.get("output_path")
    return Path(folder) if isinstance(folder, str) and Path(folder).name else None


def _parts_needed(path: Path, others: Sequence[Path]) -> int:
    """Returns how many trailing parts of `path` are needed to tell it apart from all `others`."""
    for length in range(1, len(path.parts)):
        if all(other.parts[-length:] != path.parts[-length:] for other in others):
            return length
    return len(path.parts)

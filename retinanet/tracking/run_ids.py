"""Which run of a tracker belongs to an output folder, for when it is resumed."""

import json
from pathlib import Path

from retinanet.runtime.files import written_whole

FILE = "trackers.json"


def known_id(folder: Path, kind: str) -> str | None:
    """The id that the folder's run has with a tracker; None if it has none."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    run_id = content.get(kind) if isinstance(content, dict) else None
    return run_id if isinstance(run_id, str) else None


def remember_id(folder: Path, kind: str, run_id: str) -> None:
    kinds = {known: known_id(folder, known) for known in ("mlflow", "wandb")}
    with written_whole(folder / FILE) as file:
        file.write(json.dumps({name: value for name, value in {**kinds, kind: run_id}.items() if value}) + "\n")

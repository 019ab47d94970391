"""COCO result files: read, alone or from the zip to hand in, and written whole."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.coco.json_values import parse_json, read_json
from retinanet.coco.results_zip import read_zip
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole

KEYS = ("image_id", "category_id", "bbox", "score")


class Results(NamedTuple):
    """The content of a result file."""

    rows: Any  # as parsed, not checked
    member: str | None = None  # its name in the zip, if it came in one


def default_results_path(set_name: str) -> Path:
    return Path(f"{set_name}_bbox_results.json")


def read_results(path: Path) -> Results:
    """Read a result file, or the one in a .zip. UserError if it is missing or broken."""
    if path.suffix.lower() == ".zip":
        member, content = read_zip(path)
        return Results(parse_json(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"), path), member)
    return Results(read_json(path))


def write_results(rows: list[Any], path: Path) -> None:
    """Write a result file, whole or not at all. UserError if that fails."""
    with file_error_explained(path, "can't be written", "Choose another place for it."), written_whole(path) as file:
        file.write(json.dumps(rows))  # json.dump takes several times as long


def results_text(rows: list[dict[str, Any]]) -> str:
    """Checked `rows` as they are handed in: only the four keys, since others make COCO's reader take another format."""
    return json.dumps([{key: row[key] for key in KEYS} for row in rows], allow_nan=False)

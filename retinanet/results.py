"""COCO result files: read, also from the zip that is handed in, and written whole."""

import io
import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.annotation_entries import is_id, is_number
from retinanet.annotations import parse_json, read_json
from retinanet.errors import UserError
from retinanet.files import written_whole
from retinanet.results_zip import read_zip

KEYS = ("image_id", "category_id", "bbox", "score")
NumberedRows = list[tuple[int, dict[str, Any]]]  # rows that have all keys, with their places in the file


class Results(NamedTuple):
    """What a result file holds."""

    rows: Any  # as parsed: nothing of it is checked
    member: str | None = None  # its name in the zip, where it came in one


def default_results_path(set_name: str) -> Path:
    return Path(f"{set_name}_bbox_results.json")


def read_results(path: Path) -> Results:
    """Read a result file, or the one in a .zip. UserError where it is missing or broken."""
    if path.suffix.lower() == ".zip":
        member, content = read_zip(path)
        return Results(parse_json(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"), path), member)
    return Results(read_json(path))


def write_results(rows: list[Any], path: Path) -> None:
    """Write a result file, whole or not at all. UserError where the place can't be written to."""
    try:
        with written_whole(path) as file:
            file.write(json.dumps(rows))  # json.dump takes several times as long
    except OSError as fault:
        raise UserError(f"{path}: can't be written ({fault.strerror}). Choose another place for it.") from None


def results_text(rows: list[dict[str, Any]]) -> str:
    """Checked `rows` as they are handed in: the four keys alone, since COCO's reader goes by what others it finds."""
    return json.dumps([{key: row[key] for key in KEYS} for row in rows], allow_nan=False)


def is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    left, top, width, height = value  # a loop takes twice as long, and large files ask millions of times
    return is_number(left) and is_number(top) and is_number(width) and is_number(height)


def is_probability(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def sameness(row: dict[str, Any]) -> Hashable:
    """What duplicates have in common."""
    if is_id(row["image_id"]) and is_id(row["category_id"]) and is_box(row["bbox"]):
        return (row["image_id"], row["category_id"], *row["bbox"])
    return repr((row["image_id"], row["category_id"], row["bbox"]))  # whatever else JSON has


def place_in_table(row: dict[str, Any]) -> tuple[int, int] | None:
    """The image and class whose best detections COCO's evaluation looks at; None where these are no ids."""
    return (row["image_id"], row["category_id"]) if is_id(row["image_id"]) and is_id(row["category_id"]) else None

"""Reads JSON files that may be broken."""

import json
from pathlib import Path
from typing import IO, Any

from retinanet.runtime.errors import UserError, file_error_explained


def read_json(path: str | Path) -> Any:
    """Returns the content of the JSON file `path`. Raises UserError if it is missing or broken."""
    with (
        file_error_explained(path, "can't be read", "Check the path and its permissions."),
        open(path, encoding="utf-8") as file,
    ):
        return parse_json(file, path)


def parse_json(file: IO[str], path: str | Path) -> Any:
    """Returns the content of the JSON `file`; a UserError calls it `path`."""
    try:
        return json.load(file)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        has_mark = "BOM" in str(error)  # Windows programs write one, which evaluation servers refuse too
        advice = "Save it as UTF-8 without a byte order mark." if has_mark else "Is it cut off? Write or copy it again."
        raise UserError(f"{path}: not valid JSON ({error}). {advice}") from None


def without_nan(content: Any) -> Any:
    """Returns plain data with None for NaN and infinite numbers, which JSON doesn't have."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)

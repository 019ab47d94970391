"""Reads JSON files that may be broken."""

import json
from pathlib import Path
from typing import Any

from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.text_files import decoded


def read_json(path: str | Path) -> Any:
    """Returns the content of the JSON file `path`. Raises UserError if it is missing or broken."""
    with file_error_explained(path, "can't be read", "Check the path and its permissions."):
        return parse_json(Path(path).read_bytes(), path)


def parse_json(content: bytes, path: str | Path) -> Any:
    """Parses `content`, the JSON of the file `path`. Raises UserError if it is broken."""
    text = decoded(content, path)
    del content  # a large file needn't be in memory twice
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or nested too deeply
        if _is_lines(text, error):
            raise UserError(
                f"{path}: holds a JSON object on each line (JSON Lines), not one list. Put [ before the first, ] after "
                "the last, and a comma after each of the others."
            ) from None
        raise UserError(f"{path}: not valid JSON ({error}). Is it cut off? Write or copy it again.") from None


def _is_lines(text: str, error: Exception) -> bool:
    """Returns True if `error` says that a second object begins on the second line."""
    return (
        isinstance(error, json.JSONDecodeError)
        and error.msg == "Extra data"
        and error.lineno == 2
        and text.startswith("{")
        and text.startswith("{", error.pos)
    )


def without_nan(content: Any) -> Any:
    """Returns `content` as plain data, with None for NaN and infinite numbers, which JSON doesn't have."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)

"""Reads JSON files and checks whether values from them are valid as ids, numbers or names."""

import json
from pathlib import Path
from typing import IO, Any, TypeGuard

from retinanet.runtime.errors import UserError, file_error_explained

NUMBER_LIMIT = 1e15  # above any coordinate or area; JSON's integers are unbounded and might not fit in a float


def read_json(path: str | Path) -> Any:
    """Returns the contents of the JSON file `path`. Raises UserError if the file can't be read or parsed."""
    with (
        file_error_explained(path, "can't be read", "Check the path and its permissions."),
        open(path, encoding="utf-8") as file,
    ):
        return parse_json(file, path)


def parse_json(file: IO[str], path: str | Path) -> Any:
    """Returns the contents of the open JSON `file`. Raises UserError, which names `path`, if they can't be parsed."""
    try:
        return json.load(file)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        has_mark = "BOM" in str(error)  # some Windows programs write a BOM, which evaluation servers reject too
        advice = "Save it as UTF-8 without a byte order mark." if has_mark else "Is it cut off? Write or copy it again."
        raise UserError(f"{path}: not valid JSON ({error}). {advice}") from None


def is_id(value: Any) -> TypeGuard[int]:
    """Returns True if a value from JSON is an integer that fits in an int64."""
    return type(value) is int and -(2**63) <= value < 2**63  # isinstance would accept a bool


def is_number(value: Any) -> TypeGuard[float]:
    """Returns True if a value from JSON is a finite number."""
    return type(value) in (int, float) and -NUMBER_LIMIT < value < NUMBER_LIMIT  # False for NaN


def is_text(value: Any) -> TypeGuard[str]:
    """Returns True if a value from JSON is text that can be printed and used in a path: it has no lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)

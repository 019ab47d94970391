"""Checks whether values from JSON files can be an id, a number or a name."""

from typing import Any, TypeGuard

NUMBER_LIMIT = 1e15  # above any coordinate or area; also keeps the unbounded whole numbers of JSON within a float


def is_id(value: Any) -> TypeGuard[int]:
    """Returns True if a value from JSON is a whole number that fits an int64."""
    return type(value) is int and -(2**63) <= value < 2**63  # not isinstance: a bool is an int


def is_number(value: Any) -> TypeGuard[float]:
    """Returns True if a value from JSON is a finite number."""
    return type(value) in (int, float) and -NUMBER_LIMIT < value < NUMBER_LIMIT  # False for NaN


def is_text(value: Any) -> TypeGuard[str]:
    """Returns True if a value from JSON is text without lone surrogates, which can be printed and be part of a path."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)

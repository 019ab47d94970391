"""Checks whether values from JSON files are valid as ids, numbers or names."""

from typing import Any, TypeGuard

NUMBER_LIMIT = 1e15  # above any coordinate or area; JSON's integers are unbounded and might not fit in a float


def is_id(value: Any) -> TypeGuard[int]:
    """Returns True if a value from JSON is an integer that fits in an int64."""
    return type(value) is int and -(2**63) <= value < 2**63  # isinstance would accept a bool


def is_number(value: Any) -> TypeGuard[float]:
    """Returns True if a value from JSON is a number between -NUMBER_LIMIT and NUMBER_LIMIT."""
    return type(value) in (int, float) and -NUMBER_LIMIT < value < NUMBER_LIMIT  # False for NaN


def is_text(value: Any) -> TypeGuard[str]:
    """Returns True if a value from JSON is text that can be printed and used in a path: it has no lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)

"""What all command lines share: argparse's classes, the types of flags, and from flags to settings."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import printable

Settings = TypeVar("Settings")


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, with one line for a mistake, whatever the arguments are: a shell's * gives names of files."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_code, f"{self.prog}: error: {printable(message)} (--help lists the flags)\n")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each flag's default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def parser_of(settings: type, description: str | None, prog: str | None = None) -> ArgumentParser:
    """A parser whose flags have the defaults of the `settings` class, a dataclass with a field for each flag."""
    parser = ArgumentParser(prog=prog, description=description, formatter_class=HelpFormatter)
    parser.set_defaults(**{field.name: field.default for field in dataclasses.fields(settings)})
    return parser


def parsed(parser: argparse.ArgumentParser, settings: type[Settings], argv: Sequence[str] | None) -> Settings:
    """The `settings` that the command line `argv` gives; several values of a flag become a tuple."""
    values = vars(parser.parse_args(argv))
    return settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def given(settings: Any, name: str) -> bool:
    """Whether the flag `name` has another value than its default."""
    return getattr(settings, name) != getattr(type(settings), name)


def refuse(settings: Any, names: Sequence[str], reason: str) -> None:
    """UserError at the first of the flags `names` that is given."""
    for name in names:
        if given(settings, name):
            raise UserError(f"--{name} {reason}")


def whole_number(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            limit = "" if most == 2**63 - 1 else f", at most {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}{limit}")
        return number

    return parse


def number_above(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a finite number above `low`, and at most `high`."""
    return _number(f"a number above {low:g}", high, lambda number: low < number)


def number_from(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a finite number from `low` to `high`, both included."""
    return _number(f"a number from {low:g}", high, lambda number: low <= number)


def _number(words: str, high: float, above: Callable[[float], bool]) -> Callable[[str], float]:
    limit = "" if high == float("inf") else f", at most {high:g}"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not (above(number) and number <= high and number != float("inf")):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}{limit}")
        return number

    return parse

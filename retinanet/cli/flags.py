"""What all command lines share: argparse's classes, the types of flags, and from flags to settings."""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import printable
from retinanet.training.recipes import recipe_values

Settings = TypeVar("Settings")
# What other libraries call our flags.
ELSEWHERE = {
    "lr": ("learning_rate",),
    "wd": ("weight_decay",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "num_epochs": ("epochs",),
    "num_workers": ("workers",),
    "gpu": ("device",),
    "cuda": ("device",),
    "data": ("coco_path",),
    "dataset": ("coco_path",),
    "data_path": ("coco_path",),
    "model": ("checkpoint_path", "depth"),
    "ckpt": ("checkpoint_path",),
    "checkpoint": ("checkpoint_path",),
    "backbone": ("depth",),
    "pretrained": ("weights",),
    "output": ("output_path", "results_path"),
    "out": ("output_path", "results_path"),
    "output_dir": ("output_path",),
    "img_size": ("min_side",),
    "size": ("min_side",),
    "amp": ("precision",),
    "conf": ("threshold",),
    "score_threshold": ("threshold",),
    "iou": ("nms_iou",),
    "set": ("set_name", "val_set"),
    "split": ("set_name", "val_set"),
    "results": ("results_path", "pred_file"),
}


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, with a short --help and one line for a mistake, whatever the arguments are."""

    def __init__(self, *, most_used: Sequence[str] = (), **how: Any) -> None:
        super().__init__(add_help=False, **how)
        self.most_used = most_used
        what = "show the most used flags; --help all shows all" if most_used else "show the flags"
        short: dict[str, Any] = {"nargs": "?", "const": "", "choices": ("", "all"), "metavar": "all"}
        self.add_argument(
            "-h",
            "--help",
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            action=_Help,
            help=what,
            **(short if most_used else {"nargs": 0}),
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and (other := self._meant_elsewhere(word)):
                self.error(f"unrecognized arguments: {word}: did you mean --{other}?")
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hint = self._suggestion(unknown[0]) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return known

    def error(self, message: str) -> NoReturn:
        more = "" if "did you mean" in message else " (--help lists the flags)"
        self.exit(UserError.exit_code, f"{self.prog}: error: {printable(message)}{more}\n")

    def _meant_elsewhere(self, word: str) -> str | None:
        """The flag that another library's name means, where argparse would take it as short for a different one."""
        name = word.partition("=")[0].removeprefix("--")
        starting = {flag for flag in self._option_string_actions if flag.startswith(f"--{name}")}
        meant = [flag for flag in ELSEWHERE.get(name, ()) if f"--{flag}" in self._option_string_actions]
        return meant[0] if meant and starting and not starting & {f"--{name}", *(f"--{one}" for one in meant)} else None

    def _suggestion(self, unknown: str) -> str:
        """What was probably meant: another separator, another library's name, or a slip of the pen."""
        flags = {flag.removeprefix("--") for flag in self._option_string_actions if flag.startswith("--")}
        name = unknown.partition("=")[0].lstrip("-").replace("-", "_").lower()
        candidates = [name, *ELSEWHERE.get(name, ()), *difflib.get_close_matches(name, flags, n=1)]
        found = next((f"--{flag}" for flag in candidates if flag in flags), None)
        return f": did you mean {found}?" if found else ""

    def short_help(self) -> str:
        formatter = self._get_formatter()
        operands = [action for action in self._actions if not action.option_strings]
        words = "".join(f" {action.metavar}{' ...' if action.nargs == '+' else ''}" for action in operands)
        formatter.add_usage(f"{self.prog}{words} [flags]", [], [])
        formatter.add_text(self.description)
        formatter.start_section(f"the most used of {len(self._actions) - 1} flags (--help all shows all)")
        formatter.add_arguments([*operands, *(self._option_string_actions[f"--{name}"] for name in self.most_used)])
        formatter.end_section()
        return formatter.format_help()


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, value: Any, _flag: str | None = None) -> None:
        assert isinstance(parser, ArgumentParser)
        print(parser.format_help() if value == "all" or not parser.most_used else parser.short_help(), end="")
        parser.exit()


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each flag's default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == ():
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


def parser_of(
    settings: type, description: str | None, *, most_used: Sequence[str] = (), prog: str | None = None
) -> ArgumentParser:
    """A parser whose flags have the defaults of the `settings` class, a dataclass with a field for each flag.

    A short --help shows the flags `most_used`, without their --; without any, all.
    """
    parser = ArgumentParser(prog=prog, description=description, formatter_class=HelpFormatter, most_used=most_used)
    parser.set_defaults(**{field.name: field.default for field in dataclasses.fields(settings)})
    return parser


def parsed(parser: argparse.ArgumentParser, settings: type[Settings], argv: Sequence[str] | None) -> Settings:
    """The `settings` that the command line `argv` gives; several values of a flag become a tuple."""
    values = vars(parser.parse_args(argv))
    return settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def given(settings: Any, name: str) -> bool:
    """Whether the flag `name` has another value than its default, or its recipe's."""
    of_recipe = recipe_values(settings) if hasattr(settings, "recipe") else {}
    return getattr(settings, name) not in (getattr(type(settings), name), of_recipe.get(name))


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

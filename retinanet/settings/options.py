"""Turns dataclass fields into command-line flags: a field defines a flag's default, help text, type and choices.

    @dataclass(frozen=True)
    class Loss:
        gamma: float = option(2.0, "focal loss: how strongly hard anchors are favoured", number_from(0))

    @dataclass(frozen=True)
    class TrainSettings:
        loss: Loss = part(Loss, "loss")

This defines `--gamma`, in the group `loss` of --help, and `settings.loss.gamma`. A command can't have two flags of the
same name.
"""

import argparse
import dataclasses
import difflib
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from retinanet import __version__
from retinanet.runtime.errors import FLAGS, UserError
from retinanet.runtime.printable import counted, printable

NUM_OF_PARSER = 2  # flags that every command has: --help and --version
Settings = TypeVar("Settings")
Kind = Callable[[str], Any] | Sequence[Any]
# Flag names in other libraries, and the flags that they correspond to here.
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


class Option(NamedTuple):
    """A flag's properties, for the parser and for runs that resume or repeat another run."""

    text: str | None
    kind: Kind  # a function that parses a word, or the values to choose from
    nargs: str | int | None  # as in argparse; several values become a tuple
    metavar: str | tuple[str, ...] | None
    flag: str | None  # the flag's name if it isn't the field's
    off: str | None  # the help text of --no_..., which turns a switch off
    positional: bool
    may_change: bool
    repeated: bool


def option(
    default: Any,
    text: str | None,
    kind: Kind = str,
    *,
    nargs: str | int | None = None,
    metavar: str | tuple[str, ...] | None = None,
    flag: str | None = None,
    off: str | None = None,
    positional: bool = False,
    may_change: bool = False,
    repeated: bool = True,
) -> Any:
    """Returns a field that defines a flag: a switch if `kind` is bool, a choice if it is a sequence of values.

    With `may_change`, the value may change when a run is resumed. Without `repeated`, --from_run doesn't take the value
    from the record that it reads.
    """
    details = Option(text, kind, nargs, metavar, flag, off, positional, may_change, repeated)
    return field(default=default, metadata={"option": details})


def part(kind: type[Settings], heading: str | None = None, text: str | None = None) -> Settings:
    """Returns a field that holds a dataclass of further options; with a `heading`, --help shows them as a group."""
    part_of: Any = field(default_factory=kind, metadata={"heading": heading, "text": text})
    return part_of


def another_default(settings: type[Any], name: str, default: Any) -> Any:
    """Returns a field with the same option as the field `name` of the class `settings`, but a different default."""
    (metadata,) = (each.metadata for each in fields(settings) if each.name == name)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Given:
    """The names of the flags on the command line; `changed` holds only the flags whose value isn't the default."""

    names: frozenset[str]
    changed: frozenset[str]

    def refuse(self, names: Collection[str], reason: str) -> None:
        """Raises UserError for the first of the flags `names` that the user changed.

        A flag that was set to its default value is not refused.
        """
        for name in names:
            if name in self.changed:
                raise UserError(f"--{name} {reason}")


def parsed(
    settings: type[Settings],
    description: str | None,
    argv: Sequence[str] | None,
    *,
    most_used: Sequence[str] = (),
    prog: str | None = None,
) -> tuple[Settings, Given]:
    """Parses `argv` or the command line; returns the settings and the flags that were given.

    `most_used` holds the names, without dashes, of the flags that the short --help shows; if it is empty, --help shows
    all flags.
    """
    parser = ArgumentParser(prog=prog, description=description, formatter_class=HelpFormatter, most_used=most_used)
    _add_options(parser, settings)
    FLAGS.clear()
    FLAGS.update(parser.flags)
    unset = argparse.Namespace(**dict.fromkeys(options_of(settings), _NOT_GIVEN))
    values = vars(parser.parse_args(argv, unset))
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not _NOT_GIVEN
    }
    defaults = {each.name: each.default for each in _flat_fields(settings)}
    changed = [name for name, value in given.items() if value != defaults[name]]
    return with_values(settings(), _defaults_read(settings) | given), Given(frozenset(given), frozenset(changed))


def options_of(settings: Any) -> dict[str, Option]:
    """Returns the options of a settings class by name, in the order of its fields."""
    return {field.name: field.metadata["option"] for field in _flat_fields(settings)}


def flat(settings: Any) -> dict[str, Any]:
    """Returns the settings as they are stored in JSON and checkpoints.

    The result maps flag names to values, with tuples as lists and paths as strings.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return str(value) if isinstance(value, Path) else value

    named: dict[str, Any] = {}
    for each in _flags_and_parts(settings):
        value = getattr(settings, each.name)
        named |= flat(value) if "heading" in each.metadata else {each.name: plain(value)}
    return named


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """Returns the settings with new values for the flags in `values`, whichever parts contain them."""
    assert not values.keys() - options_of(settings).keys(), values
    return _with_values(settings, values)


def values_read(settings: Any, plain: dict[str, Any], source: Path) -> dict[str, Any]:
    """Parses the values in `plain`, which has the form of `flat`'s result, as the command line would.

    Raises UserError, naming the file `source`, for a name that isn't a flag or a value that the flag wouldn't take.
    """
    options = options_of(settings)
    defaults = {each.name: each.default for each in _flat_fields(settings)}
    if unknown := sorted(plain.keys() - options.keys()):
        raise UserError(
            f"{source}: has the setting {unknown[0]!r}, which version {__version__} doesn't know. Use the version that "
            "wrote the file, or remove the setting from a copy of it."
        )
    values = {}
    for name, value in plain.items():
        try:
            values[name] = _value_read(options[name], defaults[name], value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise UserError(
                f"{source}: its setting {name!r} doesn't suit --{options[name].flag or name}: {error}. Correct it in a "
                "copy of the file."
            ) from None
    return values


def require_allowed(settings: Any, values: dict[str, Any]) -> None:
    """Raises UserError if a flag doesn't accept its value in `values`, a dict like the one that `flat` returns."""
    options = options_of(settings)
    defaults = {each.name: each.default for each in _flat_fields(settings)}
    for name, value in values.items():
        try:
            _value_read(options[name], defaults[name], value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise UserError(f"--{name}: {error}") from None


def _value_read(details: Option, default: Any, value: Any) -> Any:
    """Reads `value` as the flag would. Raises ValueError or ArgumentTypeError if the flag wouldn't take it."""
    kind = details.kind
    if value is None and default is None:
        return None
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false; got {value!r}")
        return value
    if isinstance(value, list) != bool(details.nargs):
        raise ValueError(f"expected {'a list' if details.nargs else 'a single value'}; got {value!r}")
    words = value if isinstance(value, list) else [value]
    count = len(words)
    if (details.nargs == "+" and not count) or (isinstance(details.nargs, int) and details.nargs != count):
        raise ValueError(f"expected a list of another length; got {counted(count, 'value')}")
    for word in words:
        # Only values that a command line can contain are accepted.
        if type(word) not in (int, float, str) or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in str(word)):
            raise ValueError(f"expected a number or a text; got {word!r}")
    read = tuple(kind(str(word)) if callable(kind) else _chosen(kind, str(word)) for word in words)
    return read if details.nargs else read[0]


def _chosen(choices: Sequence[Any], word: str) -> Any:
    for choice in choices:
        if word == str(choice):
            return choice
    raise ValueError(f"expected one of {', '.join(map(str, choices))}; got {word!r}")


def _with_values(settings: Any, values: dict[str, Any]) -> Any:
    changes = {each.name: values[each.name] for each in _flags_and_parts(settings) if each.name in values}
    for each in _flags_and_parts(settings):
        if "heading" in each.metadata:
            changes[each.name] = _with_values(getattr(settings, each.name), values)
    return replace(settings, **changes)


def _defaults_read(settings: Any) -> dict[str, Any]:
    """Parses string defaults as if the user had typed them, so that auto can become an installed backend."""
    return {
        each.name: each.metadata["option"].kind(each.default)
        for each in _flat_fields(settings)
        if isinstance(each.default, str) and callable(each.metadata["option"].kind)
    }


def _flags_and_parts(settings: Any) -> Iterator[dataclasses.Field[Any]]:
    return (each for each in fields(settings) if each.metadata)  # other fields aren't flags


def _flat_fields(settings: Any) -> Iterator[dataclasses.Field[Any]]:
    for each in _flags_and_parts(settings):
        if "heading" in each.metadata:
            assert callable(each.default_factory)
            yield from _flat_fields(each.default_factory)
        else:
            yield each


_NOT_GIVEN = object()


def _add_options(group: argparse._ActionsContainer, settings: Any) -> None:
    for each in _flags_and_parts(settings):
        if "heading" in each.metadata:
            heading, text = each.metadata["heading"], each.metadata["text"]
            assert callable(each.default_factory)
            _add_options(group.add_argument_group(heading, text) if heading else group, each.default_factory)
        else:
            _add_option(group, each.name, each.default, each.metadata["option"])


def _add_option(group: argparse._ActionsContainer, name: str, default: Any, details: Option) -> None:
    arguments = {"nargs": details.nargs, "metavar": details.metavar, "default": default}
    given_arguments: dict[str, Any] = {key: value for key, value in arguments.items() if value is not None}
    flag = details.flag or name
    if details.kind is bool:
        group.add_argument(f"--{flag}", dest=name, action="store_true", help=details.text)
        if details.off:
            group.add_argument(f"--no_{flag}", dest=name, action="store_false", default=False, help=details.off)
        return
    if not callable(details.kind):
        given_arguments |= {"choices": details.kind, "type": type(details.kind[0])}
    else:
        given_arguments["type"] = details.kind
    if details.positional:
        group.add_argument(name, help=details.text, **given_arguments)
    else:
        group.add_argument(f"--{flag}", dest=name, help=details.text, **given_arguments)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that has a short --help and reports each mistake on a single line."""

    def __init__(self, *, most_used: Sequence[str] = (), **options: Any) -> None:
        super().__init__(add_help=False, **options)
        self.most_used = most_used
        text = "show the most used flags; --help all shows all" if most_used else "show the flags"
        short: dict[str, Any] = {"nargs": "?", "const": "", "choices": ("", "all"), "metavar": "all"}
        self.add_argument(
            "-h",
            "--help",
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            action=_Help,
            help=text,
            **(short if most_used else {"nargs": 0}),
        )
        self.add_argument(
            "--version", action="version", version=f"retinanet {__version__}", help="show the version and exit"
        )

    @property
    def flags(self) -> set[str]:
        return {flag for flag in self._option_string_actions if flag.startswith("--")}

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
        """Returns our flag for another library's flag `word` if argparse would expand `word` to a different flag."""
        name = word.partition("=")[0].removeprefix("--")
        starting = {flag for flag in self._option_string_actions if flag.startswith(f"--{name}")}
        meant = [flag for flag in ELSEWHERE.get(name, ()) if f"--{flag}" in self._option_string_actions]
        exact = {f"--{name}", *(f"--{flag}" for flag in meant)}
        return meant[0] if meant and starting and not starting & exact else None

    def _suggestion(self, unknown: str) -> str:
        """Suggests the flag probably meant, allowing for typos, other separators and other libraries' names."""
        flags = {flag.removeprefix("--") for flag in self._option_string_actions if flag.startswith("--")}
        name = unknown.partition("=")[0].lstrip("-").replace("-", "_").lower()
        candidates = [name, *ELSEWHERE.get(name, ()), *difflib.get_close_matches(name, flags, n=1)]
        meant = next((f"--{flag}" for flag in candidates if flag in flags), None)
        return f": did you mean {meant}?" if meant else ""

    def short_help(self) -> str:
        formatter = self._get_formatter()
        operands = [action for action in self._actions if not action.option_strings]
        words = "".join(f" {action.metavar}{' ...' if action.nargs == '+' else ''}" for action in operands)
        formatter.add_usage(f"{self.prog}{words} [flags]", [], [])
        formatter.add_text(self.description)
        formatter.start_section(f"the most used of {len(self._actions) - NUM_OF_PARSER} flags (--help all shows all)")
        formatter.add_arguments([*operands, *(self._option_string_actions[f"--{name}"] for name in self.most_used)])
        formatter.end_section()
        return formatter.format_help()


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, value: Any, _flag: str | None = None) -> None:
        assert isinstance(parser, ArgumentParser)
        print(parser.format_help() if value == "all" or not parser.most_used else parser.short_help(), end="")
        parser.exit()


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the flag's limits to a help text, unless they are obvious, and the default, unless the text names it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = self._with_default(action)
        limits = action.type.limits if isinstance(action.type, Number) else UNSAID
        if text is None or limits == UNSAID:
            return text
        limits = limits.removeprefix("from ")
        if "(default:" in text:
            return text.replace("(default:", f"({limits}; default:")
        return f"{text} ({limits})"

    def _with_default(self, action: argparse.Action) -> str | None:
        no_default = action.default is None or action.default is False or action.default == ()
        if no_default or "(default:" in (action.help or ""):
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


UNSAID = "0 or more"  # limits that are too obvious to print


@dataclass(frozen=True)
class Number:
    """Parses a number and checks that it is within the limits, which error messages and --help state."""

    what: str
    limits: str  # such as "50 or more"
    read: Callable[[str], float]
    allows: Callable[[float], bool]

    def __call__(self, text: str) -> Any:
        try:
            number = self.read(text)
        except ValueError:
            number = math.nan
        if not self.allows(number):
            comma = "," if self.limits.endswith("or more") else ""
            raise argparse.ArgumentTypeError(f"expected {self.what}{comma} {self.limits}; got {text!r}")
        return number


def whole_number(least: int, most: int = 2**63 - 1) -> Number:
    """Returns a function that parses a whole number from `least` to `most`."""
    limits = f"{least} or more" if most == 2**63 - 1 else f"from {least} to {most}"
    return Number("a whole number", limits, int, lambda number: least <= number <= most)


def number_above(low: float, high: float = math.inf) -> Number:
    """Returns a function that parses a finite number above `low` and at most `high`."""
    limits = f"above {low:g}" if high == math.inf else f"above {low:g} and at most {high:g}"
    return Number("a number", limits, float, lambda number: low < number <= high and number != math.inf)


def number_from(low: float, high: float = math.inf) -> Number:
    """Returns a function that parses a finite number from `low` to `high`, both included."""
    limits = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
    return Number("a number", limits, float, lambda number: low <= number <= high and number != math.inf)

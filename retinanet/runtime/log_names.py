"""Makes and parses log names that describe the run: train_depth18_seed3407_lr1e-4_epochs50_no6.log."""

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

ENDING = ".log"
RUN_KINDS = ("train", "valid", "test")
INTEGER_PART = re.compile(r"(depth|seed|epochs|no)([0-9]{1,19})")
RATE_PART = re.compile(r"lr([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)")


class LogName(NamedTuple):
    """The parts of a log's name; None for a missing part."""

    kind: str | None = None  # of RUN_KINDS
    depth: int | None = None
    seed: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    number: int | None = None  # of the run in its folder


def parse_name(name: str) -> LogName:
    """Reads the parts of a log's name, in any order; other parts, such as a date, are ignored."""
    parts: dict[str, Any] = {}
    for part in name.removesuffix(ENDING).split("_"):
        if part in RUN_KINDS:
            parts.setdefault("kind", part)
        elif whole := INTEGER_PART.fullmatch(part):
            parts.setdefault("number" if whole[1] == "no" else whole[1], int(whole[2]))
        elif (rate := RATE_PART.fullmatch(part)) and 0 < float(rate[1]) < math.inf:
            parts.setdefault("learning_rate", float(rate[1]))
    return LogName(**parts)


def make_name(name: LogName) -> str:
    rate = None if name.learning_rate is None else rate_text(name.learning_rate)
    parts = (("depth", name.depth), ("seed", name.seed), ("lr", rate), ("epochs", name.epochs), ("no", name.number))
    words = [name.kind or "", *(f"{prefix}{part}" for prefix, part in parts if part is not None)]
    return "_".join(word for word in words if word) + ENDING


def name_of_run(kind: str, settings: dict[str, Any]) -> LogName:
    """Returns the name of a run with these settings (flags), without a number."""
    whole = {name: settings.get(name) for name in ("depth", "seed", "epochs")}
    rate = settings.get("learning_rate")
    return LogName(
        kind,
        **{name: value for name, value in whole.items() if type(value) is int and value >= 0},
        learning_rate=rate if isinstance(rate, float) and 0 < rate < math.inf else None,
    )


def next_number(folder: Path) -> int:
    """Returns one more than the largest number of a log of any kind in `folder`; 1 if there is none."""
    return 1 + max((parse_name(path.name).number or 0 for path in folder.glob(f"*{ENDING}")), default=0)


def rate_text(rate: float) -> str:
    """Returns the shortest text for exactly this number: 1e-4, 2.5e-4, 1e-2, 0.1."""
    digits = Decimal(repr(rate)).normalize()
    return min(f"{digits:e}".replace("+", ""), f"{digits:f}", key=len)

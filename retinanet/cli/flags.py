"""What the scripts' command lines share: the flags, their types, and how a user's mistake ends."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from retinanet.data.settings import MAX_PIXELS
from retinanet.detector.settings import DEFAULT_DETECTION, DetectionSettings
from retinanet.evaluation import coco_table
from retinanet.runtime.device import PRECISIONS
from retinanet.runtime.printable import printable


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, whose messages stay on one line whatever the arguments are: a shell's * gives names of files."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each flag's default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


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
    return _number(f"a number above {low:g}", low, high, lambda number: low < number)


def number_from(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a finite number from `low` to `high`, both included."""
    return _number(f"a number from {low:g}", low, high, lambda number: low <= number)


def _number(words: str, low: float, high: float, above: Callable[[float], bool]) -> Callable[[str], float]:
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


def device_of(text: str) -> torch.device:
    """An argparse type: cpu, cuda or cuda:N that is there; auto is the GPU if there is one."""
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cpu":
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")  # torchrun's, which counts the processes of a machine
    if text.startswith("cuda:") and local_rank and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} would be the GPU of all ranks, and each needs its own. Give cuda or auto"
        )
    if text == "cuda" and local_rank:
        text = f"cuda:{local_rank}"
    kind, _, number = text.partition(":")
    if kind != "cuda" or not (number.isdecimal() or text == "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:0, cuda:1 ...")
    if int(number or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"{text!r}: PyTorch sees {torch.cuda.device_count()} GPUs here. Use --device cpu, start no more processes "
            "than there are GPUs, or check the driver."
        )
    return torch.device(text)


def plain_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as JSON and checkpoints can hold them: a path or a device becomes its name."""
    plain = (int, float, str, bool, list, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in vars(args).items()}


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", type=device_of, default="auto", help="auto (the GPU if there is one), cpu, cuda:N")
    group.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="of the network's arithmetic; auto: bfloat16 on a GPU that has it, else float32 (TF32 on a GPU)",
    )
    group.add_argument("--workers", type=whole_number(0), help="loader processes (default: 1 on a CPU, else up to 8)")
    group.add_argument(
        "--max_pixels",
        type=whole_number(1),
        default=MAX_PIXELS,
        help="refuse larger images, before they are decoded",
    )


def add_detection_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--threshold", type=number_from(0, 1), default=DEFAULT_DETECTION.threshold, help="scores above this are kept"
    )
    group.add_argument(
        "--num_candidates",
        type=whole_number(1),
        default=DEFAULT_DETECTION.num_candidates,
        help="best pairs of anchor and class of an image that are looked at",
    )
    group.add_argument(
        "--nms_iou", type=number_from(0, 1), default=DEFAULT_DETECTION.nms_iou, help="duplicates overlap by more"
    )
    group.add_argument(
        "--max_detections", type=whole_number(1), default=DEFAULT_DETECTION.max_detections, help="most kept in an image"
    )


def eval_backend_of(text: str) -> str:
    """An argparse type: a backend that is installed; auto is the fastest, and stays auto where none is.

    Not every run needs one: evaluate.require_backend is for those that do.
    """
    backends = coco_table.installed_backends()
    if text == "auto":
        return backends[0] if backends else text
    if text not in coco_table.BACKENDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, {', '.join(coco_table.BACKENDS)}")
    if text not in backends:
        raise argparse.ArgumentTypeError(f"{text} is not installed: pip install {text}, or leave the flag away")
    return text


def add_log_dir_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--log_dir",
        type=Path,
        help="write stdout's lines to a file in this folder too, named after the run; log/README.md",
    )


def add_eval_backend_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--eval_backend",
        type=eval_backend_of,
        default="auto",
        help="who works out the table: hotcoco or pycocotools, which give equal numbers; auto: the fastest installed",
    )


def detect_settings(args: argparse.Namespace) -> DetectionSettings:
    return DetectionSettings(args.threshold, args.num_candidates, args.nms_iou, args.max_detections)

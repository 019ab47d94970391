"""What the scripts' command lines share: the flags, their types, and how a user's mistake ends."""

import argparse
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from tqdm import tqdm

from retinanet import detect, evaluate, images
from retinanet.annotation_cache import load_annotations
from retinanet.annotations import Annotations
from retinanet.data import CocoDataset
from retinanet.errors import Diverged, OutOfResources, Stopped, UserError
from retinanet.faults import memory_explained, worker_explained
from retinanet.layout import find_annotation_file, find_image_folder
from retinanet.log_file import LOG
from retinanet.precision import PRECISIONS
from retinanet.stopping import STOP, end_workers

RANK = int(os.environ.get("RANK", 0))  # of this process among torchrun's


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its code.

    0 done, 1 findings or a bug, 2 a user's mistake, 3 diverged, 4 out of memory or a dead process, 128 + the number of
    a signal. All but a bug end in one message.
    """
    try:
        with STOP.heeded():
            code = _end_workers_after(main)
        sys.exit(code)
    except (UserError, Diverged, OutOfResources) as fault:
        _end(str(fault), fault.exit_code)
    except Stopped as stop:
        _exit(stop.exit_code)
    except BrokenPipeError:  # who read our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as fault:  # a file that can't be reached: no permission, a name too long, a disk that fails
        if fault.filename is None:
            raise
        _end(f"{fault.filename}: {fault.strerror}. Check the path and its permissions.", UserError.exit_code)


def _end_workers_after(main: Callable[[], int]) -> int:
    try:
        with memory_explained(), worker_explained():
            return main()
    finally:
        if multiprocessing.active_children():
            end_workers()  # or the exit would wait for one that hangs, or that an iterator cut short has left


def _end(message: str, exit_code: int) -> NoReturn:
    where = f" (rank {RANK})" if RANK else ""
    print(f"{Path(sys.argv[0]).name}: error{where}: {message}", file=sys.stderr, flush=True)
    _exit(exit_code)


def _exit(code: int) -> NoReturn:
    """Exit with `code`; a rank at once, as at the interpreter's end NCCL may wait for another rank, or abort."""
    if dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def say(line: str) -> None:
    """Print whole lines to stdout and the log, flushed, and not into a progress bar's middle; at rank 0 alone."""
    if RANK:
        return
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
    LOG.write(f"{line}\n")


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


def default_workers(device: torch.device) -> int:
    """Up to 8 loader processes for a GPU; one for a CPU, whose cores the network needs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else min(8, cores)


def memory_in_use(device: torch.device) -> int:
    """Bytes at the peak: of the GPU's memory, or of this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
        default=images.MAX_PIXELS,
        help="refuse larger images, before they are decoded",
    )


def add_detection_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--threshold", type=number_from(0, 1), default=detect.THRESHOLD, help="scores above this are kept"
    )
    group.add_argument(
        "--num_candidates",
        type=whole_number(1),
        default=detect.NUM_CANDIDATES,
        help="best pairs of anchor and class of an image that are looked at",
    )
    group.add_argument("--nms_iou", type=number_from(0, 1), default=detect.NMS_IOU, help="duplicates overlap by more")
    group.add_argument(
        "--max_detections", type=whole_number(1), default=detect.MAX_DETECTIONS, help="most kept in an image"
    )


def eval_backend_of(text: str) -> str:
    """An argparse type: a backend that is installed; auto is the fastest, and stays auto where none is.

    Not every run needs one: evaluate.require_backend is for those that do.
    """
    backends = evaluate.installed_backends()
    if text == "auto":
        return backends[0] if backends else text
    if text not in evaluate.BACKENDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, {', '.join(evaluate.BACKENDS)}")
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


def detect_settings(args: argparse.Namespace) -> dict[str, float]:
    return {name: getattr(args, name) for name in ("threshold", "num_candidates", "nms_iou", "max_detections")}


def load_set(
    coco_path: Path,
    set_name: str,
    *,
    min_side: int,
    max_side: int,
    max_pixels: int,
    require_images: bool = True,
    keep_crowds: bool = False,
) -> tuple[Annotations, CocoDataset]:
    """A set of the data folder, its annotations checked and its image files there. `keep_crowds`: see CocoDataset."""
    annotations = load_annotations(find_annotation_file(coco_path, set_name))
    folder = find_image_folder(coco_path, set_name)
    dataset = CocoDataset(annotations, folder, min_side, max_side, max_pixels, keep_crowds=keep_crowds)
    if require_images:
        dataset.require_images()
    return annotations, dataset

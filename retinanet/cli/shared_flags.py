"""Flags of several scripts: the data folder, the machine, detection, COCO's table and the log."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.cli.flags import number_from, whole_number
from retinanet.detector.settings import DEFAULT_DETECTION
from retinanet.evaluation.coco_table import BACKENDS, installed_backends
from retinanet.runtime.errors import UserError

PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def add_coco_path_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument("--coco_path", type=Path, help="the data folder; see data/README.md")


def add_anchor_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--anchor_scale", type=number_from(0.25, 64), help="side of the smallest anchors, in strides of their level"
    )
    group.add_argument(
        "--anchor_ratios",
        type=number_from(0.02, 50),
        nargs="+",
        metavar="RATIO",
        help="height / width of the anchors",
    )
    group.add_argument(
        "--anchor_octaves", type=whole_number(1, 10), help="sizes of anchors on each level, from one octave to the next"
    )


def check_anchor_flags(ratios: Sequence[float]) -> None:
    """UserError where they contradict each other."""
    if len(set(ratios)) < len(ratios):
        raise UserError("--anchor_ratios names a ratio twice. Give each once")


def add_max_pixels_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--max_pixels", type=whole_number(1), help="refuse images with more pixels, before they are decoded"
    )


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    add_device_flags(group)
    group.add_argument(
        "--workers", type=whole_number(0), help="loader processes (default: 1 on a CPU, up to 8 for a GPU)"
    )
    add_max_pixels_flag(group)


def add_device_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument("--device", type=device_name, help="auto (the GPU if there is one), cpu, cuda or cuda:N")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="number format of the network; auto: bfloat16 on a GPU that has it, otherwise float32 (TF32 on a GPU)",
    )


def device_name(text: str) -> str:
    """An argparse type: auto, cpu, cuda or cuda:N; whether it is there is asked when PyTorch is."""
    kind, _, number = text.partition(":")
    if text not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:0, cuda:1 ...")
    return text


def add_views_flags(group: argparse._ActionsContainer) -> None:
    """Test-time augmentation."""
    group.add_argument("--flip_test", action="store_true", help="also detect on the mirror image")
    group.add_argument(
        "--test_sides",
        type=whole_number(64),
        nargs="+",
        metavar="SIDE",
        help="detect at each of these shorter sides; the longer side's limit scales with them (default: the "
        "checkpoint's min_side alone)",
    )


def check_views_flags(sides: Sequence[int]) -> None:
    """UserError where a side would find everything twice."""
    for side in sides:
        if sides.count(side) > 1:
            raise UserError(f"--test_sides: {side} appears twice, and would find everything twice. Give it once")


def add_detection_flags(
    parser: argparse.ArgumentParser,
    threshold_help: str = "keep detections with a higher score",
    *,
    file_decides: bool = False,
) -> None:
    """Those of DetectionSettings; with `file_decides` their default is None and may be an ONNX file's."""

    def default(value: float) -> str:
        return f" (default: {value}, or an ONNX file's own)" if file_decides else ""

    group = parser.add_argument_group("detection")
    group.add_argument("--threshold", type=number_from(0, 1), help=threshold_help)
    group.add_argument(
        "--num_candidates",
        type=whole_number(1),
        help="top-scoring candidates of an image that enter NMS" + default(DEFAULT_DETECTION.num_candidates),
    )
    group.add_argument(
        "--nms_iou",
        type=number_from(0, 1),
        help="NMS drops a detection that overlaps a better one by more than this IoU"
        + default(DEFAULT_DETECTION.nms_iou),
    )
    group.add_argument(
        "--max_detections",
        type=whole_number(1),
        help="most detections of an image" + default(DEFAULT_DETECTION.max_detections),
    )


def add_eval_backend_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--eval_backend",
        type=eval_backend,
        help="library that computes COCO's table: hotcoco or pycocotools, which give equal numbers; auto: the fastest "
        "installed",
    )


def eval_backend(text: str) -> str:
    """An argparse type: a backend that is installed; auto is the fastest, and stays auto where none is.

    Not every run needs one: coco_table.require_backend is for those that do.
    """
    backends = installed_backends()
    if text == "auto":
        return backends[0] if backends else text
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, {', '.join(BACKENDS)}")
    if text not in backends:
        raise argparse.ArgumentTypeError(f"{text} is not installed: pip install {text}, or drop the flag")
    return text


def add_log_dir_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--log_dir",
        type=Path,
        help="also write the log to a file in this folder, named after the run; see log/README.md",
    )

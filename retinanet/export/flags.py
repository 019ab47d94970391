"""The command line of export, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import given, parsed, parser_of
from retinanet.cli.shared_flags import add_coco_path_flag, add_detection_flags, add_max_pixels_flag
from retinanet.data.settings import MAX_PIXELS
from retinanet.detector.settings import DetectionSettings
from retinanet.runtime.errors import UserError

FORMATS = {"onnx": ".onnx", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class ExportSettings:
    """What export writes, and how it checks it."""

    checkpoint_path: Path = Path("output/best.pt")
    format: str = "onnx"
    output_path: Path | None = None
    no_verify: bool = False
    coco_path: Path = Path("data")
    set_name: str = "val"
    max_pixels: int = MAX_PIXELS
    threshold: float = DetectionSettings.threshold
    num_candidates: int = DetectionSettings.num_candidates
    nms_iou: float = DetectionSettings.nms_iou
    max_detections: int = DetectionSettings.max_detections

    @property
    def file(self) -> Path:
        return self.output_path or self.checkpoint_path.with_suffix(FORMATS[self.format])

    @property
    def detection(self) -> DetectionSettings:
        return DetectionSettings(self.threshold, self.num_candidates, self.nms_iou, self.max_detections)


def export_settings(argv: list[str] | None = None) -> ExportSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), ExportSettings, argv)
    if settings.file.suffix != FORMATS[settings.format]:
        raise UserError(
            f"--output_path {settings.file}: a file of --format {settings.format} ends in {FORMATS[settings.format]}"
        )
    if settings.format == "safetensors":
        for name in ("threshold", "num_candidates", "nms_iou", "max_detections"):
            if given(settings, name):
                raise UserError(f"--{name} is for --format onnx; safetensors hold weights alone")
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        ExportSettings,
        "Export a checkpoint: as ONNX, the whole detector from images to boxes; as safetensors, the weights and what "
        "rebuilds their network.",
        prog="python -m retinanet.export",
    )
    parser.add_argument("--checkpoint_path", type=Path, help="the checkpoint to export, with its averaged weights")
    parser.add_argument("--format", choices=tuple(FORMATS), help="what to write")
    parser.add_argument("--output_path", type=Path, help="file to write (default: beside the checkpoint)")
    verification = parser.add_argument_group(
        "verification", "the file must detect what the checkpoint does, or it is not written"
    )
    verification.add_argument("--no_verify", action="store_true", help="write an ONNX file without it")
    add_coco_path_flag(verification)
    verification.add_argument("--set_name", help="name of the set whose images it is verified on")
    add_max_pixels_flag(verification)
    add_detection_flags(parser)
    return parser

"""Defines the flags of python -m retinanet.export."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, option, options_of, parsed, part
from retinanet.settings.shared import BEST, Detection, coco_path_option, max_pixels_option

FORMATS = {"onnx": ".onnx", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Verification:
    no_verify: bool = option(False, "skip the verification of an ONNX file", bool)
    coco_path: Path = coco_path_option()
    set_name: str = option("val", "the set whose images verify the file")
    max_pixels: int = max_pixels_option()


@dataclass(frozen=True)
class ExportSettings:
    checkpoint_path: Path = option(Path("output") / BEST, "the checkpoint to export, with its averaged weights", Path)
    format: str = option("onnx", "format of the file", tuple(FORMATS))
    output_path: Path | None = option(None, "file to write, or its folder (default: next to the checkpoint)", Path)
    verification: Verification = part(
        Verification, "verification", "the file is only written if it detects the same as the checkpoint"
    )
    detection: Detection = part(Detection, "detection")

    @property
    def file(self) -> Path:
        beside = self.checkpoint_path.with_suffix(FORMATS[self.format])
        if self.output_path is None:
            return beside
        is_folder = self.output_path.is_dir() or not self.output_path.suffix
        return self.output_path / beside.name if is_folder else self.output_path

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        suffix = FORMATS[self.format]
        if self.file.suffix != suffix:
            raise UserError(
                f"--output_path {self.file}: the name of a file of --format {self.format} must end in {suffix}. Rename "
                "it."
            )
        if self.format == "safetensors":
            given.refuse(
                options_of(Detection), "only applies to --format onnx; safetensors files hold only weights. Remove it."
            )


def export_settings(argv: list[str] | None = None) -> ExportSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = (
        "Export a checkpoint: as ONNX, the whole detector from images to boxes; as safetensors, the weights and a "
        "description of their network."
    )
    settings, given = parsed(ExportSettings, description, argv, prog="python -m retinanet.export")
    settings.check(given)
    return settings

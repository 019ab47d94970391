"""What export can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, option, options_of, parsed, part
from retinanet.settings.shared import Detection, coco_path_option, max_pixels_option

FORMATS = {"onnx": ".onnx", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Verification:
    no_verify: bool = option(False, "write an ONNX file without it", bool)
    coco_path: Path = coco_path_option()
    set_name: str = option("val", "name of the set whose images it is verified on")
    max_pixels: int = max_pixels_option()


@dataclass(frozen=True)
class ExportSettings:
    checkpoint_path: Path = option(Path("output/best.pt"), "the checkpoint to export, with its averaged weights", Path)
    format: str = option("onnx", "what to write", tuple(FORMATS))
    output_path: Path | None = option(None, "file to write (default: beside the checkpoint)", Path)
    verification: Verification = part(
        Verification, "verification", "the file must detect what the checkpoint does, or it is not written"
    )
    detection: Detection = part(Detection, "detection")

    @property
    def file(self) -> Path:
        return self.output_path or self.checkpoint_path.with_suffix(FORMATS[self.format])

    def check(self, given: Given) -> None:
        """UserError where flags contradict each other."""
        suffix = FORMATS[self.format]
        if self.file.suffix != suffix:
            raise UserError(f"--output_path {self.file}: a file of --format {self.format} ends in {suffix}")
        if self.format == "safetensors":
            given.refuse(options_of(Detection), "is for --format onnx; safetensors hold weights alone")


def export_settings(argv: list[str] | None = None) -> ExportSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = (
        "Export a checkpoint: as ONNX, the whole detector from images to boxes; as safetensors, the weights and what "
        "rebuilds their network."
    )
    settings, given = parsed(ExportSettings, description, argv, prog="python -m retinanet.export")
    settings.check(given)
    return settings

"""Defines the flags of python -m retinanet.export."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, number_from, option, options_of, parsed, part, whole_number
from retinanet.settings.shared import BEST, Detection, coco_path_option, max_pixels_option
from retinanet.settings.train import PUBLISHED_SEED

ONNX, OPENVINO, SAFETENSORS = "onnx", "openvino", "safetensors"
FORMATS = {ONNX: ".onnx", OPENVINO: ".xml", SAFETENSORS: ".safetensors"}


@dataclass(frozen=True)
class Verification:
    no_verify: bool = option(False, "skip the verification of an ONNX or OpenVINO file", bool)
    coco_path: Path = coco_path_option()
    set_name: str = option("val", "the set whose images verify the file")
    max_pixels: int = max_pixels_option()


@dataclass(frozen=True)
class Int8:
    int8: bool = option(
        False,
        "quantise the network to INT8; layers that cost too much AP stay in float, and the AP lost on --set_name is "
        "printed",
        bool,
    )
    calibration_set: str = option("train", "the set from which images are drawn to set the ranges of the activations")
    seed: int = option(PUBLISHED_SEED, "random seed for drawing these images", whole_number(0))
    max_ap_loss: float = option(
        0.005, "the largest loss of AP allowed; a file that loses more isn't written", number_from(0)
    )


@dataclass(frozen=True)
class ExportSettings:
    checkpoint_path: Path = option(Path("output") / BEST, "the checkpoint to export, with its averaged weights", Path)
    format: str = option(ONNX, "format of the file; openvino writes a second file, .bin, beside it", tuple(FORMATS))
    output_path: Path | None = option(None, "file to write, or its folder (default: next to the checkpoint)", Path)
    verification: Verification = part(
        Verification,
        "verification",
        "the file is only written if it detects the same as the checkpoint; with --int8, if it loses little AP",
    )
    quantisation: Int8 = part(Int8, "INT8")
    detection: Detection = part(Detection, "detection")

    @property
    def file(self) -> Path:
        end = ("_int8" if self.quantisation.int8 else "") + FORMATS[self.format]
        beside = self.checkpoint_path.with_name(self.checkpoint_path.stem + end)
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
        if self.format == SAFETENSORS:
            given.refuse(
                (*options_of(Detection), *options_of(Int8)),
                "only applies to --format onnx and openvino; safetensors files hold only weights. Remove it.",
            )
        if not self.quantisation.int8:
            given.refuse(options_of(Int8), "only applies with --int8. Add it, or remove the flag.")
        elif self.verification.no_verify:
            raise UserError("--no_verify: --int8 has to measure the AP that the file loses. Remove one of the two.")


def export_settings(argv: list[str] | None = None) -> ExportSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = (
        "Export a checkpoint: as ONNX or OpenVINO, the whole detector from images to boxes, optionally in INT8; as "
        "safetensors, the weights and a description of their network."
    )
    settings, given = parsed(ExportSettings, description, argv, prog="python -m retinanet.export")
    settings.check(given)
    return settings

"""Defines the flags of python -m retinanet.sample_data."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.settings.options import option, parsed, whole_number


@dataclass(frozen=True)
class SampleDataSettings:
    folder: Path = option(Path(), "folder for the sets train, val and test", Path, positional=True)
    seed: int = option(3407, "seed of the random scenes; the same seed writes the same bytes", whole_number(0))
    num_train: int = option(400, "number of images in train", whole_number(1))
    num_val: int = option(80, "number of images in val", whole_number(1))
    num_test: int = option(40, "number of images in test", whole_number(1))


def sample_data_settings(argv: list[str] | None = None) -> SampleDataSettings:
    """Reads the settings from `argv` or the command line."""
    description = (
        "Write a small COCO-format dataset without a download. Cut-outs of photographs (coins, a cat, an astronaut, a "
        "cup, a motorcycle) are pasted on photographed backgrounds with random scale, rotation, light and overlap."
    )
    return parsed(SampleDataSettings, description, argv, prog="python -m retinanet.sample_data")[0]

"""What sample_data can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.settings.options import option, parsed, whole_number


@dataclass(frozen=True)
class SampleDataSettings:
    folder: Path = option(Path(), "where to write train, val and test", Path, positional=True)
    seed: int = option(3407, None, whole_number(0))
    num_train: int = option(400, "images of train", whole_number(1))
    num_val: int = option(80, "images of val", whole_number(1))
    num_test: int = option(40, "images of test", whole_number(1))


def sample_data_settings(argv: list[str] | None = None) -> SampleDataSettings:
    """The settings that the command line `argv`, or this process's, gives."""
    description = (
        "Write a small COCO-format data set with no download: python -m retinanet.sample_data data\n\n"
        "Cut-outs of photographs (coins, a cat, an astronaut, a cup, a motorcycle) are pasted on photographed grounds "
        "at random scale, rotation, light and overlap. The same seed writes the same bytes."
    )
    return parsed(SampleDataSettings, description, argv, prog="python -m retinanet.sample_data")[0]

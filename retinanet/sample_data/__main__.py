"""Write a small COCO-format dataset without a download."""

from retinanet.runtime.console import run
from retinanet.settings.sample_data import sample_data_settings


def main(argv: list[str] | None = None) -> int:
    settings = sample_data_settings(argv)
    from retinanet.commands.sample_data import sample_data  # after the flags are read: scikit-image takes a second

    return sample_data(settings)


if __name__ == "__main__":
    run(main)

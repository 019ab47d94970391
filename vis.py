"""Draw the objects of images and what a model found in them, or the curves of runs."""

from retinanet.cli.vis_flags import picture_settings
from retinanet.runtime.console import run


def main(argv: list[str] | None = None) -> int:
    settings = picture_settings(argv)
    from retinanet.commands.draw import draw  # after the flags are read: PyTorch takes seconds to import

    return draw(settings)


if __name__ == "__main__":
    run(main)

"""Draw the objects and detections in images, or the curves of runs."""

from retinanet.runtime.console import run
from retinanet.settings.draw import draw_settings


def main(argv: list[str] | None = None) -> int:
    settings = draw_settings(argv)
    from retinanet.commands.draw import draw  # after the flags are read: PyTorch takes seconds to import

    return draw(settings)


if __name__ == "__main__":
    run(main)

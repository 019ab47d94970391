"""Convert a data set into the suite's layout, or split one."""

from retinanet.runtime.console import run
from retinanet.settings.convert import convert_settings


def main(argv: list[str] | None = None) -> int:
    settings = convert_settings(argv)
    from retinanet.commands.convert import convert  # after the flags are read: PyTorch takes seconds to import

    return convert(settings)


if __name__ == "__main__":
    run(main)

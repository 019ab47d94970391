"""Check a data set before you pay for training."""

from retinanet.cli.check_data_flags import check_settings
from retinanet.runtime.console import run


def main(argv: list[str] | None = None) -> int:
    settings = check_settings(argv)
    from retinanet.commands.check_data import check_data  # after the flags are read: PyTorch takes seconds to import

    return check_data(settings)


if __name__ == "__main__":
    run(main)

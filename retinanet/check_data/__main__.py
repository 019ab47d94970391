"""Check a dataset before you pay for training."""

from retinanet.runtime.console import run
from retinanet.settings.check_data import check_data_settings


def main(argv: list[str] | None = None) -> int:
    settings = check_data_settings(argv)
    from retinanet.commands.check_data import check_data  # after the flags are read: PyTorch takes seconds to import

    return check_data(settings)


if __name__ == "__main__":
    run(main)

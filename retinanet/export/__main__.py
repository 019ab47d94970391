"""Exports a checkpoint for other programs."""

from retinanet.runtime.console import run
from retinanet.settings.export import export_settings


def main(argv: list[str] | None = None) -> int:
    settings = export_settings(argv)
    from retinanet.commands.export import export  # after the flags are read: PyTorch takes seconds to import

    return export(settings)


if __name__ == "__main__":
    run(main)

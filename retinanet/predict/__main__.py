"""Detects objects in images and videos."""

from retinanet.runtime.console import run
from retinanet.settings.predict import predict_settings


def main(argv: list[str] | None = None) -> int:
    settings = predict_settings(argv)
    from retinanet.commands.predict import predict  # after the flags are read: PyTorch takes seconds to import

    return predict(settings)


if __name__ == "__main__":
    run(main)

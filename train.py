"""Train a RetinaNet on a COCO-format dataset, in a single process or as one of torchrun's processes."""

from retinanet.runtime.console import run
from retinanet.settings.train import train_settings


def main(argv: list[str] | None = None) -> int:
    settings = train_settings(argv)
    from retinanet.commands.train import train  # after the flags are read: PyTorch takes seconds to import

    return train(settings)


if __name__ == "__main__":
    run(main)

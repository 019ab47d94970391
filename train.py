"""Trains a RetinaNet on a COCO-format dataset, in a single process or as one of torchrun's processes."""

from retinanet.runtime.console import run_command
from retinanet.settings.train import train_settings

if __name__ == "__main__":
    run_command(train_settings, "train")

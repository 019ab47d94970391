"""Train a RetinaNet on a COCO-format data set, alone or as one of torchrun's processes."""

from retinanet.runtime.console import run_command
from retinanet.settings.train import train_settings

if __name__ == "__main__":
    run_command(train_settings, "train")

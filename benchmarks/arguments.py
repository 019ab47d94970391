"""Types of the benchmarks' flags."""

import argparse

import torch

from retinanet.cli.shared_flags import device_name
from retinanet.runtime.device import find_device
from retinanet.runtime.errors import UserError


def device_of(text: str) -> torch.device:
    """An argparse type: a device that is there."""
    try:
        return find_device(device_name(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

"""Defines types of the benchmarks' flags."""

import argparse

import torch

from retinanet.runtime.device import find_device
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import device_name


def device_of(text: str) -> torch.device:
    """Returns the device; an argparse type that refuses devices that don't exist."""
    try:
        return find_device(device_name(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

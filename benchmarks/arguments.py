"""Defines argument types for the flags of the benchmarks."""

import argparse

import torch

from retinanet.runtime.device import find_device
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import device_name


def device_of(text: str) -> torch.device:
    """An argparse type: returns the device called `text`, and rejects it if this machine doesn't have it."""
    try:
        return find_device(device_name(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

"""PyTorch's files, read without running what is in them."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from retinanet.errors import UserError
from retinanet.files import written_whole


def load_file(path: str | Path, what: str) -> Any:
    """The tensors and plain data in `path`, on the CPU.

    `what` says in the message of a UserError what the file should have been. A file is refused when it is missing, is
    not PyTorch's, or holds pickled code: unpickling an object of a class runs code that the file chooses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused just below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of {what}.") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused as {what}: it does not hold tensors and plain data alone. A file with pickled objects in "
            "it can run code when it is opened. Give a file without."
        ) from None
    except Exception as fault:  # torch.load raises whatever the damaged bytes lead it to
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise UserError(f"{path}: not {what}, or damaged ({reason}). Give another file.") from fault


def save_file(content: Any, path: str | Path) -> None:
    """Write `content` to `path`, whole or not at all. Raises OSError or, from PyTorch, RuntimeError."""
    with written_whole(path, "wb") as file:
        torch.save(content, file)

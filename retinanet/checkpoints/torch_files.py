"""PyTorch's files, read without running what is in them and without believing what they claim."""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet.runtime.archives import require_stored
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import written_whole

# The functions that torch.save writes calls of where it saves tensors and plain data. PyTorch's unpickler calls more of
# them, such as torch.FloatTensor and bytearray, which take as much memory as a number in the file says.
ALLOWED_CALLS = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|\w+Storage|[a-z]\w*)"
    r"|_codecs encode|(builtins|__builtin__) (set|complex)"
)
DEEPEST, MOST_ITEMS = 50, 10**7  # containers in containers, and what they hold together; real files: 6, and 10^5


def load_file(path: str | Path, what: str) -> Any:
    """The tensors and plain data in `path`, on the CPU.

    `what` says in the message of a UserError what the file should have been. A file is refused when it is missing, is
    not PyTorch's, is damaged (torch.load itself loads flipped bits without a word), claims to hold more than it does,
    or holds pickled code: unpickling an object of a class runs code that the file chooses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused just below
            _check_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        _count_items(content, {})
        for tensor in _tensors_in(content):
            _check_tensor(tensor)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of {what}.") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused as {what}: it does not hold tensors and plain data alone. A file with pickled objects in "
            "it can run code when it is opened. Give a file without."
        ) from None
    except Exception as error:  # torch.load and zipfile raise whatever the damaged bytes lead them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not {what}, or damaged ({reason}). Give another file.") from error
    return content


def save_file(content: Any, path: str | Path, *, previous: Path | None = None) -> None:
    """Write `content` to `path`, whole or not at all (see written_whole). Raises OSError."""
    try:
        with written_whole(path, "wb", previous=previous) as file:
            torch.save(content, file)
    except RuntimeError as error:  # what torch.save makes of a full disk
        raise OSError(str(error).splitlines()[0]) from error


def _check_archive(path: str | Path) -> None:
    """Raise where the members of the archive `path` are compressed, together too large for it, or changed."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("not a zip archive, which torch.save has written since PyTorch 1.6")
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            require_stored(archive, size)
            changed = archive.testzip()
            if changed is not None:
                raise ValueError(f"the checksum of {changed} is wrong")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _check_calls(archive.read(name))


def _check_calls(pickled: bytes) -> None:
    """Raise UnpicklingError where `pickled` calls what tensors and plain data have no need of."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST") and not ALLOWED_CALLS.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"calls {argument}")


def _count_items(content: Any, counts: dict[int, int], depth: int = 0) -> int:
    """How many items nested containers hold when each is followed wherever it is referred to.

    Raises where they are too many to be walked through, or nest too deeply, as those that hold themselves do. `counts`
    are those of the containers that were counted before, by their identity.
    """
    if not isinstance(content, dict | list | tuple | set):
        return 1
    if depth == DEEPEST:
        raise ValueError("its containers nest too deeply")
    if id(content) not in counts:
        parts = (*content.keys(), *content.values()) if isinstance(content, dict) else content
        counts[id(content)] = 1 + sum(_count_items(part, counts, depth + 1) for part in parts)
    if counts[id(content)] > MOST_ITEMS:
        raise ValueError(f"its containers refer to more than {MOST_ITEMS} items")
    return counts[id(content)]


def _check_tensor(tensor: Tensor) -> None:
    """Raise where `tensor` claims more elements than the file stores, which a few bytes would unfold to."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a {tensor.layout} tensor on {tensor.device}, not a plain one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor claims the shape {list(tensor.shape)}, more than the file stores of it")


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples, each container looked at once."""
    seen, waiting = set(), [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one

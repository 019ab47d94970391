"""Reads and writes PyTorch files, without running code from them or trusting the sizes that they claim."""

import errno
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from retinanet.runtime.errors import UserError
from retinanet.runtime.files import free_space, size_text, written_whole

# The functions that torch.save needs for tensors and plain data. PyTorch's unpickler allows more, such as
# torch.FloatTensor and bytearray, which allocate as much memory as a number in the file says.
ALLOWED_CALLS = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|\w+Storage|[a-z]\w*)"
    r"|_codecs encode|(builtins|__builtin__) (set|complex)"
)
# Before PyTorch 1.6, a file began with a pickle of this number. Four more pickles hold a version, the sizes of
# integers, the content and the keys of the tensors' numbers.
OLD_MAGIC, MORE_OLD_PICKLES = 0x1950A86A20F9469CFC6C, 4
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DEEPEST, MOST_ITEMS = 50, 10**7  # limits on the nesting and on the items of all containers; real files have 6 and 10^5

# Errors of the disk or of a busy system. The file may be intact, so they are no reason to start a run anew.
UNREADABLE = {errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


def load_file(path: str | Path, what: str) -> Any:
    """Returns the tensors and plain data in `path`, on the CPU.

    Raises UserError if the file is missing, not a PyTorch file, damaged (torch.load itself ignores flipped bits),
    claims more data than it contains, or contains pickled objects, which can run any code. The message calls the
    expected content `what`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these are about pickles, which are refused below
            _check_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        _count_items(content, {})
        for tensor in _tensors_in(content):
            _check_tensor(tensor)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Use the path of {what}.") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused as {what}: it holds more than tensors and plain data. Pickled objects can run code when "
            "the file is opened. If it is a pickled module, save its weights where it was made:\n"
            f"    model = torch.load({Path(path).name!r}, map_location='cpu', weights_only=False)\n"
            f"    torch.save(model.state_dict(), {Path(path).stem + '_state_dict.pt'!r})\n"
            "Then use the new file. (Before PyTorch 1.13, leave out weights_only.)"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make torch.load and zipfile raise almost anything
        if isinstance(error, OSError) and error.errno in UNREADABLE:
            error.filename = error.filename or str(path)
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not {what}, or damaged ({reason}). Use another file.") from error
    return content


def save_file(content: Any, path: str | Path, *, previous: Path | None = None) -> None:
    """Writes `content` to `path` atomically (see written_whole).

    Raises OSError if writing fails; if the disk is full, the message gives the space that is needed and the free space.
    """
    try:
        with written_whole(path, "wb", previous=previous) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise _disk_error(error, Path(path), content) from error


def num_bytes(content: Any) -> int:
    """Returns the number of bytes that the tensors in nested dicts, lists and tuples take up in a file."""
    storages = [tensor.untyped_storage() for tensor in _tensors_in(content)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _disk_error(error: BaseException, path: Path, content: Any) -> OSError:
    """Returns the OSError that caused `error`; torch.save hides it behind a RuntimeError about its archive."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return OSError(str(error).splitlines()[0])
    if cause.errno not in DISK_FULL:
        return cause
    needed, free = size_text(num_bytes(content)), size_text(free_space(path.parent))
    return OSError(cause.errno, f"{cause.strerror}: {needed} needed, {free} free")


def _check_archive(path: str | Path) -> None:
    """Raises ValueError if `path` isn't a PyTorch file, or has members that are compressed, damaged or too large.

    Raises UnpicklingError in the same cases as _check_calls.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return _check_old_format(file)
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            _require_stored(archive, size)
            changed = archive.testzip()
            if changed is not None:
                raise ValueError(f"the checksum of {changed} is wrong")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _check_calls(archive.read(name))


def _check_old_format(file: BinaryIO) -> None:
    """Raises ValueError unless `file` has the format of torch.save before PyTorch 1.6: a few pickles, then raw numbers.

    torch.load itself compares the sizes that the pickles claim with the rest of the file. There are no checksums, so a
    changed number isn't noticed. Raises UnpicklingError in the same cases as _check_calls.
    """
    if OLD_MAGIC not in [argument for _, argument, _ in pickletools.genops(file)]:
        raise ValueError("neither a zip archive nor in the format of PyTorch before 1.6")
    for _ in range(MORE_OLD_PICKLES):
        _check_calls(file)


def _require_stored(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Raises ValueError if any member of `archive` is compressed, or if the members exceed the file's `num_bytes`."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, unlike those that torch.save writes")
    if sum(member.file_size for member in members) > num_bytes:
        raise ValueError("its members claim more bytes than the file has")


def _check_calls(pickled: bytes | BinaryIO) -> None:
    """Raises UnpicklingError if `pickled` calls functions that tensors and plain data don't need."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST") and not ALLOWED_CALLS.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"calls {argument}")


def _count_items(content: Any, counts: dict[int, int], depth: int = 0) -> int:
    """Returns the number of items in nested containers; an item counts once for each reference to it.

    Raises ValueError if there are too many items, or if containers nest too deeply, as when one contains itself.
    `counts` caches the numbers by container id.
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
    """Raises ValueError if `tensor` isn't a plain tensor on the CPU, or claims more elements than the file stores."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a {tensor.layout} tensor on {tensor.device}, not a plain one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor claims the shape {list(tensor.shape)}, but the file stores fewer numbers")


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """Yields all tensors in nested dicts, lists and tuples, and visits each container once."""
    seen, waiting = set(), [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item

"""The zip in which a result file is handed in: one member, read without trusting the size it claims."""

import zipfile
from pathlib import Path

from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import written_whole

# The most bytes that a member may claim, and the most for each byte of the zip, beyond the first 64 MiB: rows of
# results shrink to about a tenth, never to less than a hundredth.
MAX_BYTES, MAX_GROWTH, SMALL = 2**31, 100, 2**26
WRITTEN_AT = (1980, 1, 1, 0, 0, 0)  # the earliest date in a zip; fixed, so that equal rows make equal bytes
FASTEST = 1  # of zlib's levels; slower ones hardly shrink digits further


def read_zip(path: Path) -> tuple[str, bytes]:
    """The name and the bytes of the only member of the zip `path`, a .json. UserError if it holds anything else."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _only_member(archive, path.stat().st_size)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: can't be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception as error:  # damaged bytes make zipfile raise almost anything
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a zip with a result file in it, or damaged ({reason}). Zip the result file again, alone."
        ) from error


def write_zip(text: str, path: Path) -> None:
    """Write NAME.zip with `text` in it as NAME.json, whole or not at all. UserError if that fails.

    Equal texts give equal bytes.
    """
    member = zipfile.ZipInfo(f"{path.stem}.json", WRITTEN_AT)
    member.create_system, member.external_attr = 3, 0o644 << 16  # a plain file with the usual permissions on Unix
    with (
        file_error_explained(path, "can't be written", "Choose another place for it."),
        written_whole(path, "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        archive.writestr(member, text, zipfile.ZIP_DEFLATED, FASTEST)


def _only_member(archive: zipfile.ZipFile, size: int) -> tuple[str, bytes]:
    members = archive.infolist()
    names = ", ".join(member.filename for member in members[:3]) + (" ..." if len(members) > 3 else "")
    if len(members) != 1 or not members[0].filename.endswith(".json"):
        raise ValueError(f"it must hold one .json and nothing else, but holds {names or 'nothing'}")
    (member,) = members
    if member.file_size > min(MAX_BYTES, SMALL + MAX_GROWTH * size):
        raise ValueError(f"{names} claims {member.file_size} bytes in a zip of {size}, more than any result file")
    with archive.open(member) as file:
        content = file.read(member.file_size)  # without the limit all is unpacked before its size is compared
    if len(content) != member.file_size:
        raise ValueError(f"{names} claims {member.file_size} bytes but has {len(content)}")
    return member.filename, content

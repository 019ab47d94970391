"""The zip in which a result file is handed in: it alone in there, and read without believing what it claims."""

import zipfile
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.runtime.files import written_whole

# A member may claim so many bytes. Rows of results shrink to a tenth or so, never to less than a hundredth.
MAX_BYTES, MAX_GROWTH, SMALL = 2**31, 100, 2**26
WRITTEN_AT = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: the same rows make the same bytes
FASTEST = 1  # of zlib's levels: digits hardly shrink any further


def read_zip(path: Path) -> tuple[str, bytes]:
    """The name and the bytes of the only member, a .json, of the zip `path`. UserError where there is no such."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _only_member(archive, path.stat().st_size)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: can't be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception as error:  # zipfile raises whatever the damaged bytes lead it to
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a zip with a result file in it, or damaged ({reason}). Pack that file again, alone."
        ) from error


def write_zip(text: str, path: Path) -> None:
    """Write NAME.zip with `text` in it as NAME.json, whole or not at all; equal texts give equal bytes.

    UserError where the place can't be written to.
    """
    member = zipfile.ZipInfo(f"{path.stem}.json", WRITTEN_AT)
    member.create_system, member.external_attr = 3, 0o644 << 16  # a plain file, also as Unix unpacks it
    try:
        with written_whole(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, FASTEST)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}). Choose another place for it.") from None


def _only_member(archive: zipfile.ZipFile, size: int) -> tuple[str, bytes]:
    members = archive.infolist()
    names = ", ".join(member.filename for member in members[:3]) + (" ..." if len(members) > 3 else "")
    if len(members) != 1 or not members[0].filename.endswith(".json"):
        raise ValueError(f"it should hold one .json and nothing else, and holds {names or 'nothing'}")
    (member,) = members
    if member.file_size > min(MAX_BYTES, SMALL + MAX_GROWTH * size):
        raise ValueError(f"{names} claims {member.file_size} bytes in a zip of {size}, as no result file does")
    with archive.open(member) as file:
        content = file.read(member.file_size)  # without a number it is all unpacked before the claim is looked at
    if len(content) != member.file_size:
        raise ValueError(f"{names} claims {member.file_size} bytes and has {len(content)}")
    return member.filename, content

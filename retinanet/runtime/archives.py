"""A check that a zip archive claims no more than it holds."""

import zipfile


def require_stored(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """ValueError if members of `archive`, a file of `num_bytes`, are compressed or together larger than the file."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, unlike those of a file written by this program")
    if sum(member.file_size for member in members) > num_bytes:
        raise ValueError("its members claim more bytes than the file has")

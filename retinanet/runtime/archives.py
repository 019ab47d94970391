"""Refuses zip archives that claim more bytes than they hold."""

import zipfile


def require_stored(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Raises ValueError if members of `archive` are compressed or together exceed the file's `num_bytes`."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, unlike those of a file written by this program")
    if sum(member.file_size for member in members) > num_bytes:
        raise ValueError("its members claim more bytes than the file has")

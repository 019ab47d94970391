"""Zip archives that claim no more than they hold."""

import zipfile


def require_stored(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """ValueError where the members of `archive`, a file of `num_bytes`, are compressed or together too large for it."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, which they never are")
    if sum(member.file_size for member in members) > num_bytes:
        raise ValueError("its members claim more bytes than the file has")

"""Decodes text files by their byte order mark, by their declaration if they are XML, or otherwise as UTF-8."""

import codecs
import re
from pathlib import Path
from typing import IO

from retinanet.runtime.errors import UserError

ENCODINGS = {  # by byte order mark; UTF-32 comes first, because its mark may begin with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LONGEST_MARK = max(map(len, ENCODINGS))  # bytes
DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([^"'<>]*)["']""")
# The encodings that Windows programs really use if they declare the key; each is a superset of its key.
WRITTEN_AS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "cp950"}


def encoding_of(start: bytes) -> str:
    """Returns the encoding indicated by the byte order mark in a file's first bytes, or UTF-8 if there is none."""
    return next((encoding for mark, encoding in ENCODINGS.items() if start.startswith(mark)), "utf-8")


def open_text(path: Path) -> IO[str]:
    """Opens a text file, such as a CSV file, in the encoding that its byte order mark indicates, or else in UTF-8."""
    with open(path, "rb") as file:
        encoding = encoding_of(file.read(LONGEST_MARK))
    return open(path, encoding=encoding, newline="")


def has_mark(start: bytes) -> bool:
    """Returns True if a file's first bytes are a byte order mark."""
    return start.startswith(tuple(ENCODINGS))


def decoded(content: bytes, path: str | Path) -> str:
    """Decodes `content`, the bytes of the text file `path`. Raises UserError with the line number if that fails."""
    return _decoded(content, path, encoding_of(content), "Save it as UTF-8.")


def decoded_xml(content: bytes, path: Path) -> bytes:
    """Returns the `content` of the XML file `path` in UTF-8. Raises UserError if its encoding is unknown or wrong."""
    encoding, advice = encoding_of(content), "Declare its encoding in the first line, or save it as UTF-8."
    if content.startswith((b"<\0", b"\0<")):
        encoding = "utf-16-le" if content.startswith(b"<") else "utf-16-be"
    elif not has_mark(content) and (declaration := DECLARATION.match(content)):
        name = declaration[1].decode("latin-1")
        advice = f"It declares the encoding {name!r}. Declare its actual encoding, or save it as UTF-8."
        try:
            known = codecs.lookup(name).name
        except (LookupError, ValueError):  # ValueError if the name holds a null character
            raise UserError(
                f"{path}:1: declares the encoding {name!r}, which doesn't exist. Declare its actual encoding, such as "
                "windows-1252 or gb18030, or save it as UTF-8."
            ) from None
        if not known.startswith(("utf-16", "utf-32")):  # a file whose declaration reads as ASCII is in neither
            encoding = WRITTEN_AS.get(known, known)
    text = _decoded(content, path, encoding, advice)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which some encodings can express
        raise UserError(f"{path}: is not {encoding.upper()} text. {advice}") from None


def _decoded(content: bytes, path: str | Path, encoding: str, advice: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        byte = f" (byte 0x{content[fault.start]:02x})" if fault.start < len(content) else ""
        name = encoding.upper().removesuffix("-SIG")
        raise UserError(f"{path}:{line}: is not {name} text{byte}. {advice}") from None
    except (UnicodeError, LookupError):  # Python has codecs that don't produce text
        raise UserError(f"{path}: is not {encoding.upper()} text. {advice}") from None

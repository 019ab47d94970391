"""Fonts for names in pictures: the system's, for letters that matplotlib's own font lacks."""

import sys
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from retinanet.runtime.printable import printable
from retinanet.runtime.streams import complain

MOST_LETTERS_NAMED = 5  # in the message
# Fonts are tried in order of their file names, plain ones first. A last-resort font shows every letter as a box.
UNLIKE_TEXT = ("bold", "italic", "oblique", "black", "thin", "light", "serif", "mono", "unifont", "condensed")
LAST_RESORT = "lastresort"
# The Debian and Ubuntu package for letters whose Unicode name starts with this word.
FONT_PACKAGES = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH"), "fonts-noto-cjk")
SYMBOLS, ANY_SCRIPT = "fonts-symbola", "fonts-noto-core"
_announced: set[str] = set()  # packages that were named in a message


def give_fonts(figure: Figure, font_files: Sequence[str] | None = None) -> None:
    """Let the texts of `figure` use `font_files` (default: the system's) for letters that their own font lacks.

    Letters in none of them stay boxes. One line on stderr says so and names the package to install, instead of
    matplotlib's warning about each letter.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    lacking = frozenset(letter for text in texts for letter in text.get_text() if _is_lacking(letter))
    if not lacking:
        return
    families, missing = _families_for(lacking, _system_fonts() if font_files is None else tuple(font_files))
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *families])
    # Permanent, not in a context: a window is drawn much later.
    warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from|Matplotlib currently does not support")
    _announce(missing)


@cache
def font_file(letters: str) -> str:
    """A file of the font for these letters: matplotlib's own, or the system's first that has those it lacks."""
    lacking = {letter for letter in letters if _is_lacking(letter)}
    own = font_manager.findfont(FontProperties())
    if not lacking:
        return own
    for file in _system_fonts():
        try:
            if lacking <= set(map(chr, FT2Font(file).get_charmap())):
                return file
        except (OSError, RuntimeError, ValueError, NotImplementedError):  # damaged, or a bitmap font
            continue
    _announce(frozenset(lacking))
    return own


@cache
def _own_letters() -> frozenset[int]:
    """The code points in matplotlib's default font."""
    return frozenset(FT2Font(font_manager.findfont(FontProperties())).get_charmap())


def _is_lacking(letter: str) -> bool:
    return not letter.isascii() and ord(letter) not in _own_letters() and unicodedata.category(letter) != "Cf"


@cache
def _system_fonts() -> tuple[str, ...]:
    """The system's font files as of now: matplotlib's own list dates from its first start."""
    files = [file for file in font_manager.findSystemFonts() if LAST_RESORT not in Path(file).stem.lower()]
    return tuple(sorted(files, key=_oddness))


def _oddness(file: str) -> tuple[int, bool, str]:
    name = Path(file).stem.lower()
    return sum(word in name for word in UNLIKE_TEXT), "sans" not in name, name


@cache
def _families_for(letters: frozenset[str], files: tuple[str, ...]) -> tuple[list[str], frozenset[str]]:
    """The families of the first files with the letters, registered with matplotlib, and the letters in none."""
    families: list[str] = []
    for file in files:
        if not letters:
            break
        try:
            font = FT2Font(file)
            charmap = font.get_charmap()
            found = {letter for letter in letters if ord(letter) in charmap}
            if found and all(entry.fname != file for entry in font_manager.fontManager.ttflist):
                font_manager.fontManager.addfont(file)
        except (
            OSError,
            RuntimeError,
            ValueError,
            NotImplementedError,
        ):  # damaged, or a bitmap font
            continue
        if found:
            families.append(font.family_name)
            letters -= found
    return families, letters


def _announce(missing: frozenset[str]) -> None:
    packages = sorted({_package_of(letter) for letter in missing} - _announced)
    if packages:
        _announced.update(packages)
        letters = printable("".join(sorted(missing)[:MOST_LETTERS_NAMED]))
        more = " ..." if len(missing) > MOST_LETTERS_NAMED else ""
        complain(
            f"{Path(sys.argv[0]).name}: no font on this machine has the letters {letters}{more}, so boxes stand for "
            f"them in the picture. Install one, on Debian or Ubuntu with: apt-get install {' '.join(packages)}"
        )


def _package_of(letter: str) -> str:
    script = unicodedata.name(letter, "").split(" ")[0]
    return FONT_PACKAGES.get(script) or (SYMBOLS if unicodedata.category(letter) == "So" else ANY_SCRIPT)

"""Fonts for the names in pictures: where matplotlib's own lacks their letters, those that the system has."""

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

MOST_LETTERS_NAMED = 5  # letters named in the message
# Fonts are tried by their files' names: plain ones first. A last resort has a box for every letter, and no letter.
UNLIKE_TEXT = ("bold", "italic", "oblique", "black", "thin", "light", "serif", "mono", "unifont", "condensed")
LAST_RESORT = "lastresort"
# Debian's and Ubuntu's package for a letter whose Unicode name begins so.
FONT_PACKAGES = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH"), "fonts-noto-cjk")
SYMBOLS, ANY_SCRIPT = "fonts-symbola", "fonts-noto-core"
_announced: set[str] = set()  # packages that were named


def give_fonts(figure: Figure, font_files: Sequence[str] | None = None) -> None:
    """Let the texts of `figure` use the fonts in `font_files` (the system's if not given) for what their own lacks.

    Letters that none of them has stay boxes. One line on stderr says so and names the package to install, instead of
    matplotlib's warning about each letter.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    lacking = frozenset(letter for text in texts for letter in text.get_text() if _is_lacking(letter))
    if not lacking:
        return
    families, missing = _families_for(lacking, _system_fonts() if font_files is None else tuple(font_files))
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *families])
    # For good, not in a context: a window is drawn long after this.
    warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from|Matplotlib currently does not support")
    _announce(missing)


@cache
def _own_letters() -> frozenset[int]:
    """The code points in matplotlib's default font."""
    return frozenset(FT2Font(font_manager.findfont(FontProperties())).get_charmap())


def _is_lacking(letter: str) -> bool:
    return not letter.isascii() and ord(letter) not in _own_letters() and unicodedata.category(letter) != "Cf"


@cache
def _system_fonts() -> tuple[str, ...]:
    """The system's font files as they are now: matplotlib's list of them is from its first start."""
    files = [file for file in font_manager.findSystemFonts() if LAST_RESORT not in Path(file).stem.lower()]
    return tuple(sorted(files, key=_oddness))


def _oddness(file: str) -> tuple[int, bool, str]:
    name = Path(file).stem.lower()
    return sum(word in name for word in UNLIKE_TEXT), "sans" not in name, name


@cache
def _families_for(letters: frozenset[str], files: tuple[str, ...]) -> tuple[list[str], frozenset[str]]:
    """The families of the first files with the letters, made known to matplotlib, and the letters that none has."""
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
        except (OSError, RuntimeError, ValueError, NotImplementedError):  # damaged, or of bitmaps, as colour emoji are
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
        print(
            f"{Path(sys.argv[0]).name}: no font on this machine has the letters {letters}{more}, so boxes stand for "
            f"them in the picture. Install one, on Debian or Ubuntu with: apt-get install {' '.join(packages)}",
            file=sys.stderr,
        )


def _package_of(letter: str) -> str:
    script = unicodedata.name(letter, "").split(" ")[0]
    return FONT_PACKAGES.get(script) or (SYMBOLS if unicodedata.category(letter) == "So" else ANY_SCRIPT)

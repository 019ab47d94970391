"""Chooses fonts for names in pictures: system fonts supply the letters that matplotlib's own font lacks."""

import sys
import unicodedata
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

from retinanet.runtime.printable import printable
from retinanet.runtime.streams import complain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LETTERS_NAMED = 5  # the maximum number of letters named in the message
# Fonts with the fewest of these words in their file names are tried first. A last-resort font has only boxes.
UNLIKE_TEXT = ("bold", "italic", "oblique", "black", "thin", "light", "serif", "mono", "unifont", "condensed")
LAST_RESORT = "lastresort"
_announced: set[str] = set()  # letters already reported as missing


def give_fonts(figure: "Figure") -> None:
    """Lets matplotlib fall back to system fonts, character by character, in the texts of `figure`.

    Characters missing from all fonts appear as boxes; one line on stderr reports them, in place of matplotlib's
    warnings.
    """
    from matplotlib.text import Text  # not at the top: predict paints without figures

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    files = _files_for(frozenset(letter for text in texts for letter in text.get_text()))
    families = [FT2Font(file).family_name for file in files[1:]]
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *families])


def font_file(letters: str) -> str:
    """Returns one font file for `letters`.

    It is matplotlib's own or, if that lacks any of them, the system font that has the most of the missing letters.
    """
    default, *others = _files_for(frozenset(letters))
    return max(others, key=lambda file: len(_letters_of(file) & set(letters) - _letters_of(default)), default=default)


@cache
def _files_for(letters: frozenset[str]) -> tuple[str, ...]:
    """Returns the file of matplotlib's own font, then the files of system fonts that add missing letters.

    Lists the system fonts again, because matplotlib caches its list on first use and may miss fonts installed since.
    """
    files: list[str] = [font_manager.findfont(FontProperties())]
    shown = {letter for letter in letters if not letter.isascii() and unicodedata.category(letter) != "Cf"}
    missing = shown - _letters_of(files[0])
    for file in sorted(font_manager.findSystemFonts(), key=_oddness) if missing else ():
        if missing & _letters_of(file):
            font_manager.fontManager.addfont(file)
            files.append(file)
            missing -= _letters_of(file)
        if not missing:
            break
    # The warning filter is permanent, not limited to a context, because a window is drawn much later.
    warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from|Matplotlib currently does not support")
    if missing and not _announced:
        _announced.update(missing)
        named = printable("".join(sorted(missing)[:MOST_LETTERS_NAMED])) + " ..." * (len(missing) > MOST_LETTERS_NAMED)
        complain(
            f"{Path(sys.argv[0]).name}: no font on this machine has the letters {named}, so the picture shows boxes "
            "instead. Install one, on Debian or Ubuntu with: apt-get install fonts-noto-core fonts-noto-cjk"
        )
    return tuple(files)


@cache
def _letters_of(file: str) -> set[str]:
    if LAST_RESORT in Path(file).stem.lower():
        return set()
    try:
        return set(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError, ValueError, NotImplementedError):  # damaged, or a bitmap font
        return set()


def _oddness(file: str) -> tuple[int, bool, str]:
    name = Path(file).stem.lower()
    return sum(word in name for word in UNLIKE_TEXT), "sans" not in name, name

"""Text from files made safe to show: a name can't move the cursor, forge a line of a log or change a table."""

import re

# What is not shown but obeyed, or can't be encoded: control characters (a terminal's escape sequences begin with
# one), Unicode's own line ends, letters that reverse the text around them, and halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# In Markdown: what ends a cell, begins code, HTML, an entity, a link or emphasis; and a backslash that would hide it.
MARKDOWN = re.compile(r"[|`<&\[*]|\\(?=[!-/:-@\[-`{-~])")


def printable(text: str) -> str:
    r"""`text` on one line, each letter that a terminal or a browser would obey shown as Python writes it, as \x1b.

    What is printable already stays as it is.
    """
    return UNPRINTABLE.sub(_visible, text)


def markdown_cell(text: str) -> str:
    """`text` as a cell of a Markdown table, which shows it as `printable` does."""
    return MARKDOWN.sub(r"\\\g<0>", printable(text))


def _visible(found: re.Match[str]) -> str:
    letter = found[0]
    return SHORT.get(letter) or (f"\\x{ord(letter):02x}" if letter < "\u0100" else f"\\u{ord(letter):04x}")

"""Makes text from files safe to print: a name can't move the cursor, forge a log line or break a table."""

import re

# Characters that a terminal interprets instead of displaying, or that can't be encoded: control characters (escape
# sequences start with one), Unicode line separators, characters that reverse the text around them, and lone surrogates.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# In Markdown: characters that end a cell or start code, HTML, an entity, a link or emphasis, and backslashes that
# escape the character after them.
MARKDOWN = re.compile(r"[|`<&\[*]|\\(?=[!-/:-@\[-`{-~])")


def printable(text: str) -> str:
    r"""Returns `text` on one line: UNPRINTABLE characters become Python escapes such as \x1b; the rest is kept."""
    return UNPRINTABLE.sub(_visible, text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun, such as "1 image" or "2 boxes".

    `plural` is needed only if it doesn't follow from the ending of `noun`.
    """
    if number == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{number} {plural or noun + ending}"


def markdown_cell(text: str) -> str:
    """Escapes `text` so that a cell of a Markdown table displays it as `printable(text)`."""
    return MARKDOWN.sub(r"\\\g<0>", printable(text))


def _visible(match: re.Match[str]) -> str:
    letter = match[0]
    return SHORT.get(letter) or (f"\\x{ord(letter):02x}" if letter < "\u0100" else f"\\u{ord(letter):04x}")

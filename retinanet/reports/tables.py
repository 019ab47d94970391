"""Formats text tables, aligned for a terminal or in Markdown."""

from collections.abc import Callable, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row: the first column left-aligned, the others right-aligned, two spaces between them."""
    return ["  ".join(cells).rstrip() for cells in _in_columns(rows, str.rjust)]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table that is also aligned as plain text."""
    head, *body = _in_columns([header, *rows], str.ljust)
    return [markdown_row(*cells) for cells in (head, ["-" * len(cell) for cell in head], *body)]


def markdown_head(*names: str, rule: str = "---") -> str:
    """Returns the first two lines of a Markdown table; `rule` "---:" right-aligns all columns except the first."""
    return f"{markdown_row(*names)}\n{markdown_row('---', *[rule] * (len(names) - 1))}"


def markdown_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _in_columns(rows: Sequence[Sequence[str]], others: Callable[[str, int], str]) -> list[list[str]]:
    """Pads cells to the width of their column; `others` pads all columns except the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[row[0].ljust(widths[0]), *map(others, row[1:], widths[1:])] for row in rows]

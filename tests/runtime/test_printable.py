import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.runtime.printable import counted, markdown_cell, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat, 猫, قطة, 🐱\u200d", "a cat, 猫, قطة, 🐱\u200d"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\rc\td\x7f\0", r"a\nb\rc\td\x7f\x00"),
        ("\x9b2J\x85\u2028\u2029", r"\x9b2J\x85\u2028\u2029"),
        ("gpj\u202egnp", r"gpj\u202egnp"),
        ("\ud800 and \udcff", r"\ud800 and \udcff"),
        (r"C:\new\x1b", r"C:\new\x1b"),
    ],
)
def test_by_hand(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_any_text_is_printable(text):
    shown = printable(text)
    assert printable(shown) == shown
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    directions = {unicodedata.bidirectional(letter) for letter in shown}
    assert not directions & {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI"}
    shown.encode()


@pytest.mark.parametrize(
    ("number", "nouns", "words"),
    [
        (1, ("image",), "1 image"),
        (0, ("image",), "0 images"),
        (2, ("box",), "2 boxes"),
        (2, ("class",), "2 classes"),
        (2, ("batch",), "2 batches"),
        (2, ("epoch",), "2 epochs"),
        (1, ("process",), "1 process"),
        (2, ("process",), "2 processes"),
        (1, ("image or frame", "images and frames"), "1 image or frame"),
        (3, ("image or frame", "images and frames"), "3 images and frames"),
    ],
)
def test_counted(number, nouns, words):
    assert counted(number, *nouns) == words


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),  # or the backslash would be the escaped one, and the cell would end
        ("`rm`", r"\`rm\`"),
        ("<b>&lt;", r"\<b>\&lt;"),
        ("![x](http://y)", r"!\[x](http://y)"),
        ("one\ntwo | three", r"one\ntwo \| three"),
        ("C:\\runs\\model_6", r"C:\runs\model_6"),
    ],
)
def test_cells(text, cell):
    assert markdown_cell(text) == cell

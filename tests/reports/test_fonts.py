import io
import sys

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image
from support.data_folder import change_json

from retinanet.reports import fonts
from retinanet.reports.fonts import font_file, give_fonts
from retinanet.reports.labels import shortened


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(fonts, "_announced", set())
    fonts._files_for.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Pretends that the system has just these font files."""

    def pretend(*files):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(files))

    return pretend


@pytest.fixture
def make_font(tmp_path):
    """Make a font file in which each of some letters is a full square: make_font("name", "猫犬") -> its path."""
    before = list(font_manager.fontManager.ttflist)

    def make(name, letters):
        pen = TTGlyphPen(None)
        pen.moveTo((0, -200))
        for corner in ((0, 800), (1000, 800), (1000, -200)):
            pen.lineTo(corner)
        pen.closePath()
        square, glyphs = pen.glyph(), [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(glyphs)
        builder.setupCharacterMap({ord(letter): f"u{ord(letter):x}" for letter in letters})
        builder.setupGlyf(dict.fromkeys(glyphs, square))
        builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": name, "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / f"{name}.ttf")
        return str(tmp_path / f"{name}.ttf")

    yield make
    font_manager.fontManager.ttflist[:] = before


def figure_of(*texts):
    figure = Figure(figsize=(2, 2), dpi=100)
    for number, text in enumerate(texts):
        figure.text(0.1, 0.2 + 0.3 * number, text, fontsize=36)
    return figure


def share_of_ink(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return 1 - np.asarray(Image.open(buffer).convert("L")).mean() / 255


def test_letters_come_from_the_first_fonts_that_have_them(make_font, installed, capsys, recwarn):
    letters = {"Others": "鳥", "Squares A": "猫", "Squares B": "犬猫", "Squares C": "犬"}
    files = [make_font(name, letters[name]) for name in letters]
    installed(*reversed(files))
    figure = figure_of("a cat", "猫 犬")
    give_fonts(figure)
    plain, chinese = figure.texts
    assert plain.get_fontfamily() == ["sans-serif"]
    assert chinese.get_fontfamily() == ["sans-serif", "Squares A", "Squares B"]
    without = figure_of("a cat")
    assert share_of_ink(figure) - share_of_ink(without) == pytest.approx(2 * (36 / 72 * 100) ** 2 / 200**2, rel=0.1)
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []
    assert capsys.readouterr() == ("", "")


def test_one_line_where_no_font_has_them(make_font, installed, tmp_path, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vis.py"])
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    installed(str(broken), str(tmp_path / "missing.ttf"), make_font("Squares", "猫"))
    for letters in ("कुत्ता", "한", "한"):
        figure = figure_of("猫犬", letters)
        give_fonts(figure)
        share_of_ink(figure)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vis.py: no font on this machine has the letters ")
    assert err.count("\n") == 1
    assert "猫" not in err
    assert err.endswith("apt-get install fonts-noto-core fonts-noto-cjk\n")
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []


def test_no_font_is_looked_for_where_none_is_needed(monkeypatch):
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("looked for fonts"))
    give_fonts(figure_of("cat", "кошка … قطة", "\u200b\u200d\nä"))


def test_plain_fonts_come_first(make_font, installed):
    names = ["BoldSans", "NotoSansCJK-Bold", "NotoSansCJK-Regular", "wqy"]
    files = [make_font(name, "猫") for name in names]
    installed(*files)
    assert font_file("0.9 猫") == files[2]
    installed(files[0], files[1], files[3])
    fonts._files_for.cache_clear()
    assert font_file("0.9 猫") == files[3]


def test_one_file_has_most_of_the_letters(make_font, installed):
    files = [make_font("a", "猫"), make_font("b", "犬ネズミ")]
    installed(*files)
    assert font_file("cat 0.9 猫犬ネズミ") == files[1]
    assert font_file("кошка") not in files


def test_long_names_of_wide_letters_are_cut_sooner():
    assert shortened("a" * 30) == "a" * 30
    assert shortened("a" * 31) == "a" * 29 + "…"
    assert shortened("猫" * 15) == "猫" * 15
    assert shortened("猫" * 16) == "猫" * 14 + "…"
    assert shortened("a\nb") == "a\\nb"


def test_vis_of_chinese_names(script, coco_path, tmp_path, installed, recwarn):
    installed()
    change_json(
        coco_path / "val.json", lambda content: [one.update(name="猫犬") for one in content["categories"]] and None
    )
    run = script("vis", "--coco_path", coco_path, "--num_images", 5, "--picture_path", tmp_path / "vis.png")
    assert run.code == 0, run.err
    assert run.err.count("\n") == 1
    assert "fonts-noto-cjk" in run.err
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []

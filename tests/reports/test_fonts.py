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
from retinanet.reports.figures import shortened
from retinanet.reports.fonts import give_fonts


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    monkeypatch.setattr(fonts, "_announced", set())


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


def test_letters_come_from_the_first_fonts_that_have_them(make_font, capsys, recwarn):
    files = [make_font("Squares One", "猫"), make_font("Squares Two", "犬猫"), make_font("Squares Three", "犬")]
    figure = figure_of("a cat", "猫 犬")
    give_fonts(figure, files)
    plain, chinese = figure.texts
    assert plain.get_fontfamily() == ["sans-serif"]
    assert chinese.get_fontfamily() == ["sans-serif", "Squares One", "Squares Two"]
    without = figure_of("a cat")
    assert share_of_ink(figure) - share_of_ink(without) == pytest.approx(2 * (36 / 72 * 100) ** 2 / 200**2, rel=0.1)
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []
    assert capsys.readouterr() == ("", "")


def test_one_line_where_no_font_has_them(make_font, tmp_path, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vis.py"])
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    for _ in range(2):
        figure = figure_of("猫犬", "कुत्ता")
        give_fonts(figure, [str(broken), str(tmp_path / "missing.ttf"), make_font("Squares", "猫")])
        share_of_ink(figure)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vis.py: no font on this machine has the letters ")
    assert err.count("\n") == 1
    assert "猫" not in err
    assert err.endswith("apt-get install fonts-noto-cjk fonts-noto-core\n")
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []


@pytest.mark.parametrize(
    ("letter", "package"),
    [
        ("猫", "fonts-noto-cjk"),
        ("ね", "fonts-noto-cjk"),
        ("한", "fonts-noto-cjk"),
        ("บ", "fonts-noto-core"),
        ("🚗", "fonts-symbola"),
        ("\ue000", "fonts-noto-core"),
    ],
)
def test_packages(letter, package):
    assert fonts._package_of(letter) == package


def test_no_font_is_looked_for_where_none_is_needed(monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: pytest.fail("looked for fonts"))
    give_fonts(figure_of("cat", "кошка … قطة", "\u200b\u200d"))


def test_plain_fonts_come_first():
    names = ["/a/NotoSerifCJK-Regular.ttc", "/b/NotoSansCJK-Bold.ttc", "/c/NotoSansCJK-Regular.ttc", "/d/wqy.ttc"]
    assert [file[1] for file in sorted(names, key=fonts._oddness)] == ["c", "d", "b", "a"]


def test_long_names_of_wide_letters_are_cut_sooner():
    assert shortened("a" * 30) == "a" * 30
    assert shortened("a" * 31) == "a" * 29 + "…"
    assert shortened("猫" * 15) == "猫" * 15
    assert shortened("猫" * 16) == "猫" * 14 + "…"
    assert shortened("a\nb") == "a\\nb"


def test_vis_of_chinese_names(script, coco_path, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    change_json(
        coco_path / "val.json", lambda content: [one.update(name="猫犬") for one in content["categories"]] and None
    )
    run = script("vis", "--coco_path", coco_path, "--num_images", 5, "--picture_path", tmp_path / "vis.png")
    assert run.code == 0, run.err
    assert run.err.count("\n") == 1
    assert "fonts-noto-cjk" in run.err
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []

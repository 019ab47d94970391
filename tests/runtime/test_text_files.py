"""Text is decoded by its byte order mark or declaration, and what can't be decoded is named."""

import json
from pathlib import Path

import pytest

from retinanet.coco.annotations import read_annotations
from retinanet.coco.formats import format_of
from retinanet.coco.results import read_results
from retinanet.convert.readers import read_dataset
from retinanet.convert.voc import read_xml
from retinanet.runtime.errors import UserError
from retinanet.runtime.json_files import read_json
from retinanet.runtime.tree import Tree
from retinanet.settings.convert import CSV

NAME = "Müller 猫 🐈"
MARKED = ("utf-8-sig", "utf-16", "utf-32")  # Python writes a byte order mark in these


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
def test_a_mark_tells_the_encoding_of_an_annotation_file(tmp_path, encoding):
    content = {
        "images": [{"id": 1, "file_name": f"{NAME}.png", "width": 4, "height": 3}],
        "categories": [{"id": 1, "name": NAME}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    annotations = read_annotations(tmp_path / "train.json")
    assert (annotations.class_names, annotations.file_name(0)) == ([NAME], f"{NAME}.png")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_csv_file_from_windows_is_recognised(tmp_path, encoding):
    (tmp_path / "train.csv").write_text(f"{NAME}.png,,,,,\n", encoding=encoding)
    assert format_of(tmp_path, Tree()) == CSV
    (tmp_path / "classes.csv").write_text("cat,0\n", encoding=encoding)
    with pytest.raises(UserError, match=f"there is no image .*{NAME}.png"):
        read_dataset(tmp_path, CSV)


def test_other_encodings_are_told_as_such(tmp_path):
    (tmp_path / "a.json").write_bytes('{\n"name": "Müller"}'.encode("cp1252"))
    with pytest.raises(UserError, match=r"a.json:2: is not UTF-8 text \(byte 0xfc\). Save it as UTF-8"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", MARKED)
def test_a_result_file_with_a_mark_is_refused_as_servers_refuse_it(tmp_path, encoding):
    (tmp_path / "a.json").write_text("[]", encoding=encoding)
    with pytest.raises(UserError, match=r"a.json: begins with a byte order mark.* Save it as UTF-8 without it"):
        read_results(tmp_path / "a.json")


def test_json_lines_are_told_as_such(tmp_path):
    row = '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}'
    (tmp_path / "a.json").write_text(f"{row}\n{row}\n")
    with pytest.raises(UserError, match=r"a.json: holds a JSON object on each line.* Put \[ before the first"):
        read_results(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(f"{row}\nand more")
    with pytest.raises(UserError, match="not valid JSON"):
        read_results(tmp_path / "a.json")


def write_xml(path: Path, text: str, written_as: str, declared: str | None) -> None:
    declaration = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>\n'
    path.write_bytes(f"{declaration}<a>{text}</a>".encode(written_as))


@pytest.mark.parametrize(
    ("text", "written_as", "declared"),
    [
        ("猫", "gb2312", "GB2312"),
        ("镕", "gbk", "GB2312"),  # not in GB2312, and written by Windows where it declares that
        ("髙", "cp932", "Shift_JIS"),
        ("貓", "big5", "Big5"),
        ("Müller", "cp1252", "windows-1252"),
        ("Müller", "latin-1", "ISO-8859-1"),
        ("Müller", "utf-8", "utf8"),
        ("Müller", "utf-8", "utf-16"),  # .NET declares the encoding of the string that it wrote to the file
        ("猫", "utf-16", "UTF-16"),
        ("猫", "utf-16-le", "UTF-16"),
        ("猫", "utf-16-be", "UTF-16"),
        ("猫", "utf-8-sig", None),
        ("猫", "utf-8", None),
    ],
)
def test_xml_is_decoded_as_it_declares(tmp_path, text, written_as, declared):
    write_xml(tmp_path / "a.xml", text, written_as, declared)
    assert read_xml(tmp_path / "a.xml").text == text


@pytest.mark.parametrize(
    ("written_as", "declared", "message"),
    [
        ("cp1252", "ANSI", "a.xml:1: declares the encoding 'ANSI', which doesn't exist"),
        ("cp1252", "", "a.xml:1: declares the encoding '', which doesn't exist"),
        ("utf-8", "rot13", "a.xml: is not ROT-13 text. It declares the encoding 'rot13'"),
        ("cp1252", None, r"a.xml:1: is not UTF-8 text \(byte 0xfc\). Declare its encoding"),
        ("cp1252", "UTF-8", "a.xml:2: is not UTF-8 text .* It declares the encoding 'UTF-8'. Declare its actual"),
    ],
)
def test_wrong_declarations_are_named(tmp_path, written_as, declared, message):
    write_xml(tmp_path / "a.xml", "Müller", written_as, declared)
    with pytest.raises(UserError, match=message):
        read_xml(tmp_path / "a.xml")

"""YOLO rows with more than a box, coordinates from 0 or 1, and spellings: nothing is guessed."""

import json
from pathlib import Path

import pytest
from support.conversions import CAT, CLASSES, DOG, ROW, coco_json, converted, voc_object, voc_xml, write

from retinanet.runtime.errors import UserError

BOX_NUMBERS = ROW.split()[1:]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def with_rows(*rows: str, yaml: str = "") -> None:
    """Writes a YOLO set whose image a.png has these rows."""
    write({"set/data.yaml": f"train: images\n{yaml}{CLASSES}", "set/images/a.png": None})
    write({"set/labels/a.txt": "".join(f"{row}\n" for row in rows)})


def after_box(*numbers: object) -> str:
    return " ".join(["0", *BOX_NUMBERS, *map(str, numbers)])


@pytest.mark.parametrize(
    ("rows", "yaml", "flags"),
    [
        ([after_box(0.3, 0.3, 0.4, 0.6)], "kpt_shape: [2, 2]\n", ()),
        ([after_box(0.3, 0.3, 1, 0.4, 0.6, 0)], "kpt_shape: [2, 3]\n", ()),
        ([after_box(0.3, 0.3, 2, 0.4, 0.6, 0)], "", ()),  # 2 can't be a coordinate
        ([after_box(0.3, 0.3, 1)], "", ()),  # 8 numbers can't be an outline
        ([after_box(0.3, 0.3, 0.4, 0.6)] * 12, "", ()),
        ([after_box(0.3, 0.3, 0.4, 0.6)], "", ("--rows", "keypoints")),
        ([after_box(0.91, 7), after_box(0.9, 1)], "", ()),  # 7 can't be a coordinate
        ([after_box(0.91, 1)], "", ("--rows", "tracks")),
        ([after_box(4)], "", ("--rows", "tracks")),
        ([after_box(0.91)], "", ("--rows", "boxes")),
        ([after_box()], "", ("--rows", "keypoints")),
    ],
)
def test_the_box_of_rows_with_key_points_scores_and_tracks(rows, yaml, flags):
    with_rows(*rows, yaml=yaml)

    assert converted("set", *flags)["train"]["a.png"] == CAT * len(rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            after_box(0.91, 1),
            "set/labels/a.txt:1: has 7 numbers, which can be a box with a score and the number of a track",
        ),
        (
            after_box(0.3, 0.3, 0.4, 0.6),
            "has 9 numbers, which can be a box with keypoints, or an outline. Say which with",
        ),
        (
            after_box(0.91),
            "has 6 numbers. A box has 5: .* If the sixth is a score, set --rows boxes; if it is the number",
        ),
        (after_box(0.3, 0.3, 0.4, 7), "7 is not from 0 to 1"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--bad_labels", "skip")])
def test_rows_that_can_mean_two_things_are_asked_about(row, message, more):
    with_rows(row)

    if more and "which can be" not in message:  # a mistake, which may be left out
        assert converted("set", *more)["train"]["a.png"] == []
        return
    with pytest.raises(UserError, match=message):
        converted("set", *more)
    assert not Path("out").exists()


def test_outlines_become_boxes_with_and_without_the_flag():
    with_rows("0 0.1875 0.166667 0.5 0.3 0.3 0.666667", ROW.strip())
    boxes = [("cat", 12.0, 8.0, 20.0, 24.0, False), *CAT]

    assert converted("set")["train"]["a.png"] == boxes
    assert converted("set", "--rows", "outlines", output_path="again")["train"]["a.png"] == boxes


def test_difficult_in_words():
    words = {"": False, "0": False, "False": False, "Unspecified": False, "1": True, "true": True, "Yes": True}
    objects = [voc_object(extra=f"<difficult>{word}</difficult>") for word in words]
    write({"set/Annotations/a.xml": voc_xml("a.png", *objects), "set/JPEGImages/a.png": None})

    assert [row[-1] for row in converted("set")["train"]["a.png"]] == sorted(words.values())


def test_other_words_for_difficult_are_a_mistake():
    write({"set/Annotations/a.xml": voc_xml("a.png", voc_object(extra="<difficult>perhaps</difficult>"))})
    write({"set/JPEGImages/a.png": None})

    with pytest.raises(UserError, match=r"Annotations/a.xml:4: <difficult> is 'perhaps'. Write 1 or 0"):
        converted("set")


def test_a_coordinate_0_shows_that_voc_counts_from_0(capsys):
    write({f"set/JPEGImages/{stem}.png": None for stem in "ab"})
    write({"set/Annotations/a.xml": voc_xml("a.png", voc_object(box=(0, 0, 20, 24)))})
    write({"set/Annotations/b.xml": voc_xml("b.png", voc_object(box=(12, 8, 32, 32)))})

    sets = converted("set")

    assert sets == {"train": {"a.png": [("cat", 0.0, 0.0, 20.0, 24.0, False)], "b.png": CAT}}
    assert "Note: a.xml has xmin 0, so the coordinates count from 0 and not" in capsys.readouterr().out


def test_what_an_xml_says_of_its_image_wins_over_a_matching_name():
    write({"set/Annotations/a.xml": voc_xml("b.png"), "set/JPEGImages/a.png": None, "set/JPEGImages/b.png": None})

    assert converted("set") == {"train": {"b.png": CAT}}


def test_names_in_yaml_are_text_as_written():
    with_rows(ROW.replace("0", "1", 1), ROW.replace("0", "3", 1))
    write({"set/data.yaml": "train: images\nnames: [yes, no, 1.0, 007, null]\nnc: 5\n"})

    assert [row[0] for row in converted("set")["train"]["a.png"]] == ["no", "007"]


YOLO = {"images/train/a.png": None, "labels/train/a.txt": ROW}


@pytest.mark.parametrize(
    "files",
    [
        {"data.yaml": 'train: images/train\nnames: {"0": cat, "1": dog}\n'},
        {"labels/train/a.txt": "0.000000000000000000e+00 3.4375e-01 4.16667e-01 3.125e-01 5e-01\n"},
        {"data.yaml": f"train: train.txt\n{CLASSES}", "train.txt": ".\\images\\train\\a.png\n"},
        {"data.yaml": f"train: images\\train\n{CLASSES}"},
        {"labels/train/a.txt": "0, 0.34375, 0.416667, 0.3125, 0.5\n"},
        {"labels/train/a.txt": "0,0.34375,0.416667,0.3125,0.5\n"},
        {"data.yaml": f"train: train.txt\n{CLASSES}", "train.txt": "images/train/a.png\n./images/train/a.png\n\n"},
        {"data.yaml": f"Train: images/train\n{CLASSES}val:\ntest: test-dev.txt\n"},
    ],
)
def test_spellings_of_yolo(files):
    write(YOLO | {"data.yaml": f"train: images/train\n{CLASSES}"} | files, "set")

    assert converted("set") == {"train": {"a.png": CAT}}


def test_equal_names_in_two_folders_of_a_set_keep_their_folders():
    write({"images/train/a.png": None, "labels/train/a.txt": ROW, "images/more/a.png": None}, "set")
    write(
        {"labels/more/a.txt": ROW.replace("0", "1", 1), "data.yaml": f"train: [images/train, images/more]\n{CLASSES}"},
        "set",
    )

    assert converted("set") == {"train": {"train/a.png": CAT, "more/a.png": DOG}}


def test_listing_an_image_twice_is_said(capsys):
    write(YOLO | {"data.yaml": f"train: train.txt\n{CLASSES}", "train.txt": "images/train/a.png\n" * 2}, "set")

    assert converted("set") == {"train": {"a.png": CAT}}
    assert "Note: lines of train.txt that repeat an earlier image are ignored: 1" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["my photo 1", "my photo 1.png", "my photo 1 1", "JPEGImages/my photo 1.png"])
def test_lists_of_voc_with_spaces_suffixes_and_marks(line):
    write({"JPEGImages/my photo 1.png": None, "Annotations/my photo 1.xml": voc_xml("my photo 1.png")}, "set")
    write({"set/ImageSets/Main/train.txt": f"{line}\n"})

    assert converted("set") == {"train": {"my photo 1.png": CAT}}


def test_lists_of_voc_with_two_paths_a_line():
    write({"JPEGImages/a.png": None, "Annotations/a.xml": voc_xml("a.png")}, "set")
    write({"set/ImageSets/Main/train.txt": "JPEGImages/a.png Annotations/a.xml\n"})

    assert converted("set") == {"train": {"a.png": CAT}}


BAD = "0 0.5 0.5 0.4 1.2\n"


def test_all_mistakes_are_listed_by_kind(capsys):
    with_rows(*[BAD.strip()] * 6, "2 0.5 0.5 0.1 0.1", ROW.strip())
    write({"set/images/b.png": "no image"})
    write({"set/labels/b.txt": ROW})

    with pytest.raises(UserError) as caught:
        converted("set")

    assert str(caught.value).startswith(
        "set: 8 mistakes of 3 kinds, listed above; the first is set/labels/a.txt:7: class"
    )
    assert "Nothing is written" in str(caught.value)
    out = capsys.readouterr().out
    assert "  coordinates outside 0 to 1: 6; the first: set/labels/a.txt:1: 1.2 is not from 0 to 1" in out
    assert "  images that can't be read: 1; the first: set/images/b.png: " in out
    assert not Path("out").exists()


def test_bad_labels_are_left_out_and_counted_if_that_is_told(capsys):
    with_rows(*[BAD.strip()] * 6, ROW.strip())
    write({"set/images/b.png": "no image"})
    write({"set/labels/b.txt": ROW})

    assert converted("set", "--bad_labels", "skip") == {"train": {"a.png": CAT}}
    out = capsys.readouterr().out
    assert "Left out, because of --bad_labels skip: 7\n  coordinates outside 0 to 1: 6;" in out
    assert "1 not readable as an image (images/b.png)" in out


@pytest.mark.parametrize(
    ("files", "num_mistakes"),
    [
        (
            {"a.xml": voc_xml("a.png", voc_object("cat"), voc_object(box=(9, 9, 1, 1))), "b.xml": "<no", "a.png": None},
            2,
        ),
        (
            {
                "train.csv": "a.png,1,1,5,5,cat\na.png,5,5,1,1,cat\na.png,1,1,x,5,cat\nb.png,1,1,5,5,cat\n",
                "a.png": None,
            },
            3,
        ),
        (
            {
                "train.json": json.dumps(
                    coco_json(["a.png"], categories=[{"id": 1, "name": "cat"}] * 2 + [{"id": 2, "name": None}])
                ),
                "a.png": None,
            },
            2,
        ),
    ],
)
def test_mistakes_of_other_formats(files, num_mistakes):
    write(files, "set")

    with pytest.raises(UserError, match=f"set: {num_mistakes} mistakes of "):
        converted("set")
    assert len(converted("set", "--bad_labels", "skip")["train"]["a.png"]) == 1


def test_numbers_of_classes_in_yaml_may_have_gaps():
    with_rows(ROW.strip(), ROW.replace("0", "7", 1))
    write({"set/data.yaml": "path: .\ntrain: images\nnames: {7: dog, 0: cat}\n"})

    assert converted("set")["train"]["a.png"] == [*CAT, *DOG]


def test_the_path_in_yaml_is_first_one_from_the_file():
    with_rows(ROW.strip())
    write({"set/data.yaml": f"path: ..\ntrain: set/images\n{CLASSES}", "images/b.png": None, "labels/b.txt": ROW})
    assert converted("set") == {"train": {"a.png": CAT}}
    write({"set/data.yaml": f"path: .\ntrain: images\n{CLASSES}"})
    assert converted("set", output_path="again") == {"train": {"a.png": CAT}}


def test_csv_of_fractions(capsys):
    """The columns of Open Images: https://storage.googleapis.com/openimages/web/download_v7.html"""
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n"
    write({"set/train.csv": f"{header}a,x,cat,1,0.1875,0.5,0.166666667,0.666666667\n", "set/a.png": None})

    assert converted("set") == {"train": {"a.png": CAT}}
    assert "Note: all coordinates are from 0 to 1, so they are read as fractions" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["/content/pets", "C:\\Users\\me\\pets"])
def test_paths_of_another_machine_are_found_by_their_ends_and_said(folder, capsys):
    slash = "\\" if "\\" in folder else "/"
    image = slash.join((folder, "images", "train", "a.png"))
    write(YOLO | {"data.yaml": f"train: train.txt\n{CLASSES}", "train.txt": f"{image}\n"}, "set")
    assert converted("set") == {"train": {"a.png": CAT}}
    assert capsys.readouterr().out.count("isn't on this machine: set/images/train/a.png is read") == 1

    write({"set/data.yaml": f"train: {folder}{slash}images{slash}train\n{CLASSES}"})
    assert converted("set", output_path="again") == {"train": {"a.png": CAT}}

"""The columns of CSV files are told by their header; what can mean two things is asked about."""

import re
from pathlib import Path

import pytest
from PIL import Image
from support.conversions import CAT, DOG, converted, write

from retinanet.coco.folder import advice_for
from retinanet.coco.formats import CSV_BOXES, CSV_CLASSES, CSV_CORNERS, CSV_IMAGE_SIZES, CSV_PATHS
from retinanet.runtime.errors import UserError

WHEAT = 'image_id,width,height,bbox,source\na,64,48,"[12.0, 8.0, 20.0, 24.0]",usask_1\n'  # Kaggle's global wheat


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write({"set/a.png": None})


@pytest.mark.parametrize("source", ["set", "set/train.csv"])
@pytest.mark.parametrize("more", ["image_id,PredictionString\nb,1.0 0 0 50 50\n", "/m/011k07,Tortoise\n"])
def test_other_files_with_two_columns_are_no_list_of_classes(source, more, capsys):
    write({"set/train.csv": WHEAT, "set/more.csv": more})

    assert converted(source, "--names", "cat") == {"train": {"a.png": CAT}}
    assert "Files: 2 read, 1 not read: " in capsys.readouterr().out


@pytest.mark.parametrize(("size", "is_told"), [(("48", "64"), True), (("", ""), False)])
def test_a_size_tells_that_boxes_are_of_the_upright_picture(size, is_told, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save("set/a.png", exif=exif)
    write({"set/train.csv": f"image,xmin,ymin,xmax,ymax,width,height,label\na.png,12,8,32,32,{','.join(size)},cat\n"})

    assert converted("set") == {"train": {"a.png": CAT}}
    assert ("1 image with an EXIF orientation, where the size doesn't tell" in capsys.readouterr().out) != is_told


@pytest.mark.parametrize(
    "text",
    [
        'image_id,width,height,bbox,class\na,64,48,"[12.0, 8.0, 20.0, 24.0]",cat\n',
        "image;bbox;label\na.png;12 8 20 24;cat\n",
        "image,x,y,width,height,label\na.png,12,8,20,24,cat\n",
        "image,x,y,w,h,width,height,label\na.png,12,8,20,24,64,48,cat\n",
        "image,xmin,ymin,xmax,ymax,image_width,image_height,label\na.png,12,8,32,32,64,48,cat\n",
        "image,xmin,ymin,xmax,ymax,width,height,label\na.png,12,8,32,32,20,24,cat\n",  # the size of the box
        "image,xmin,ymin,xmax,ymax,width,height,label\na.png,12,8,32,32,,,cat\n",
    ],
)
def test_boxes_and_sizes_in_several_columns(text):
    write({"set/train.csv": text})

    assert converted("set") == {"train": {"a.png": CAT}}


def test_an_image_of_another_size_than_its_rows_say_is_refused():
    write({"set/train.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,640,480,cat,12,8,32,32\n"})

    with pytest.raises(UserError, match=r"train.csv:2: says 640 x 480, but set/a.png is 64 x 48 \(width x height\)"):
        converted("set")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("boxes", "what"), [(((50, 30, 60, 40), (2, 2, 30, 30)), "x1, y1, x2 and y2"), (((54, 38, 20, 20),), "the centre,")]
)
def test_boxes_that_are_no_left_top_width_and_height_are_refused(boxes, what):
    rows = "".join(f"a.png,{','.join(map(str, box))},cat\n" for box in boxes)
    write({"set/train.csv": f"image,x,y,w,h,class\n{rows}"})

    with pytest.raises(UserError, match=f"reach past their images .* but fit as {what}"):
        converted("set")


def test_a_file_without_classes_is_asked_about():
    write({"set/train.csv": WHEAT})

    assert "annotations as CSV. To convert them: python -m retinanet.convert set " in str(advice_for(Path("set")))
    with pytest.raises(UserError, match="names no column of classes, only image_id, width, height, bbox, source"):
        converted("set")
    assert converted("set", "--names", "cat") == {"train": {"a.png": CAT}}
    write({"set/train.csv": WHEAT.replace("source", "class").replace("usask_1", "dog")})
    assert converted("set", output_path="again") == {"train": {"a.png": DOG}}
    with pytest.raises(UserError, match="has a column of classes, so --names would have no effect"):
        converted("set", "--names", "cat")


def test_a_bbox_without_four_numbers_is_a_mistake():
    write({"set/train.csv": WHEAT.replace(", 24.0", "")})

    with pytest.raises(UserError, match=r"train.csv:2: bbox is '\[12.0, 8.0, 20.0\]'. Write \[left, top, width"):
        converted("set", "--names", "cat")


def test_images_are_found_by_name_below_the_folder_of_the_file():
    write({"set/train.csv": WHEAT.replace("a,64", "b,64"), "set/train/b.png": None})

    assert converted("set", "--names", "cat") == {"train": {"b.png": CAT}}


def test_the_docs_name_every_column():
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    text = docs.partition("### Columns of CSV files")[2].partition("###")[0]
    named = set(re.findall(r"`(\w+)`", text))

    assert named >= {
        *CSV_PATHS,
        *CSV_CLASSES,
        *(name for each in (*CSV_BOXES, CSV_CORNERS) for same in each for name in same),
    }
    assert named >= {name for same in CSV_IMAGE_SIZES for name in same}


def test_a_file_with_capital_letters_in_its_suffix():
    write({"set/TRAIN.CSV": "a.png,12,8,32,32,cat\n"})
    assert converted("set/TRAIN.CSV") == {"train": {"a.png": CAT}}


def test_fractions_that_rounding_takes_beyond_one():
    rows = "a.png,0.1875,0.166666667,0.3125,0.5,cat\na.png,0.5,0.5,0.5003,0.5,dog\n"
    write({"set/train.csv": f"image,x,y,w,h,label\n{rows}"})
    assert converted("set") == {"train": {"a.png": [*CAT, ("dog", 32.0, 24.0, 32.0, 24.0, False)]}}

"""Every file of a dataset is read, or named with the reason why it isn't."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conversions import CAT, CLASSES, DOG, ROW, converted, voc_xml, write
from support.length import IS_LONG

from retinanet.convert.readers import READERS, read
from retinanet.convert.reading import Reading
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import ReadSettings

YAML = f"train: images/train\nval: images/val\n{CLASSES}"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def account_line(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Files: ")]
    return line


def yolo(**more: str | None) -> dict[str, str | None]:
    return {
        "set/data.yaml": YAML,
        "set/images/train/train.png": None,
        "set/images/val/val.png": None,
        "set/labels/train/train.txt": ROW,
        "set/labels/val/val.txt": ROW,
    } | more


def test_labels_are_looked_for_by_the_path_as_written():
    write(
        {"pictures/a.png": None, "pictures/b.png": None, "set/data.yaml": f"train: train.txt\nval: val.txt\n{CLASSES}"}
    )
    write({"train.txt": "images/a.png\n", "val.txt": "images/b.png\n", "labels/a.txt": ROW, "labels/b.txt": ROW}, "set")
    Path("set/images").symlink_to("../pictures")

    assert converted("set") == {"train": {"a.png": CAT}, "val": {"b.png": CAT}}


def test_labels_may_lie_beside_their_images_in_a_folder_called_images():
    write({"set/data.yaml": YAML})
    write({"train/a.png": None, "train/a.txt": ROW, "val/b.png": None, "val/b.txt": ROW}, "set/images")

    assert converted("set") == {"train": {"a.png": CAT}, "val": {"b.png": CAT}}


def test_an_images_folder_further_up_hides_no_labels():
    write(yolo(), "images")

    assert converted("images/set") == {"train": {"train.png": CAT}, "val": {"val.png": CAT}}


def test_hidden_files_and_folders_are_left_out_and_named(capsys):
    write(yolo())
    write(
        {
            "images/train/.ipynb_checkpoints/train-checkpoint.png": None,
            "images/train/._train.png": "resource fork",
            "labels/train/._train.txt": "resource fork",
            "__MACOSX/images/train/train.png": "resource fork",
        },
        "set",
    )

    assert converted("set") == {"train": {"train.png": CAT}, "val": {"val.png": CAT}}
    assert account_line(capsys).startswith("Files: 5 read, 4 not read: 4 hidden (")


def test_hidden_xml_files_are_no_annotations(capsys):
    write({"set/JPEGImages/a.png": None, "set/Annotations/a.xml": voc_xml("a.png"), "set/Annotations/._a.xml": "\0"})

    assert converted("set") == {"train": {"a.png": CAT}}
    assert account_line(capsys) == "Files: 2 read, 1 not read: 1 hidden (Annotations/._a.xml)"


def test_links_to_folders_are_followed_unless_they_lead_back(capsys):
    write(yolo())
    write({"images/b.png": None, "labels/b.txt": ROW.replace("0", "1", 1)}, "more")
    Path("set/images/train/more").symlink_to(Path("more/images").absolute())
    Path("set/labels/train/more").symlink_to(Path("more/labels").absolute())
    Path("set/images/train/back").symlink_to(Path("set").absolute())

    assert converted("set")["train"] == {"train.png": CAT, "more/b.png": DOG}
    line = account_line(capsys)
    assert line == "Files: 7 read, 1 not read: 1 linking back to a folder around it (images/train/back)"


def test_names_are_compared_by_unicode_form_and_where_unique_by_case():
    write(yolo())
    Path("set/labels/train/train.txt").rename("set/labels/train/Train.TXT")
    write({"set/images/val/Mu\u0308ller.png": None, "set/labels/val/M\u00fcller.txt": ROW})
    write({"set/images/val/A.png": None, "set/images/val/a.png": None, "set/labels/val/a.txt": ROW})

    sets = converted("set")

    assert sets["train"] == {"train.png": CAT}
    assert sets["val"] == {"val.png": CAT, "Mu\u0308ller.png": CAT, "A.png": [], "a.png": CAT}


def test_files_that_are_not_read_are_named_by_reason(capsys):
    write(yolo())
    write({"a.heic": "x", "labels/train/typo.txt": ROW, "images/c.png": None, "notes.md": "x"}, "set")
    write({"set/train.txt": "images/train/train.png\n"})
    Path("set/gone.png").symlink_to("nowhere.png")

    converted("set")

    assert account_line(capsys) == (
        "Files: 5 read, 6 not read: 1 in an unsupported format (a.heic), 1 linking nowhere (gone.png), 1 listing "
        "images (train.txt), 1 not named by the annotations (images/c.png), 1 of another kind (notes.md), 1 without "
        "a matching image (labels/train/typo.txt)"
    )


def test_the_list_trainval_is_train_where_train_is_missing_and_lists_that_are_not_read_are_named(capsys):
    images = {f"JPEGImages/{stem}.png": None for stem in "abc"}
    write(images | {f"Annotations/{stem}.xml": voc_xml(f"{stem}.png") for stem in "abc"}, "set")
    write({"trainval.txt": "a\nb\n", "test.txt": "c\n", "cat_test.txt": "c 1\n"}, "set/ImageSets/Main")

    assert converted("set") == {"train": {"a.png": CAT, "b.png": CAT}, "test": {"c.png": CAT}}
    assert account_line(capsys).endswith("1 not read: 1 listing images (ImageSets/Main/cat_test.txt)")
    write({"set/ImageSets/Main/val.txt": "b\n"})
    assert converted("set", output_path="again")["train"] == {"a.png": CAT}


@pytest.mark.parametrize(("labelled", "of"), [(0, 2), (1, 30)])
def test_a_set_of_which_hardly_any_image_has_labels_is_refused(labelled, of):
    write({"set/data.yaml": f"train: images\n{CLASSES}", "set/annos/0.txt": ROW})
    write({f"images/{number}.png": None for number in range(of)}, "set")
    write({f"labels/{number}.txt": ROW for number in range(labelled)}, "set")

    with pytest.raises(UserError) as caught:
        converted("set")

    assert f"set: {labelled} of the {of} images of train have a label file. Looked for set/labels/0.txt and " in str(
        caught.value
    )
    assert "1 other label or text files, such as set/annos/0.txt" in str(caught.value)
    assert not Path("out").exists()
    assert len(converted("set", "--allow_unlabelled")["train"]) == of


def test_a_voc_set_with_hardly_any_annotation_is_refused():
    write({f"set/JPEGImages/{number}.png": None for number in range(21)})
    write({"set/Annotations/0.xml": voc_xml("0.png")})

    with pytest.raises(UserError, match="1 of the 21 images of the dataset have a label file"):
        converted("set")
    assert converted("set", "--allow_unlabelled")["train"]["0.png"] == CAT


FOLDERS = ("", "images", "images/train", "labels", "labels/train", "Annotations", ".hidden", "__MACOSX", "images/a b")
ELSEWHERE = ("../pictures", "../pictures/more")  # for --image_path
NAMES = (
    "a.png",
    "b.PNG",
    "a.txt",
    "b.txt",
    "a.xml",
    "train.csv",
    "train.json",
    "c.heic",
    ".a.png",
    "train.txt",
    "é.png",
)
CONTENTS = {".txt": ROW, ".xml": voc_xml("a.png"), ".csv": "a.png,1,2,3,4,cat\n", ".json": "{}"}
FILES = st.lists(st.tuples(st.sampled_from((*FOLDERS, *ELSEWHERE)), st.sampled_from(NAMES)), max_size=12, unique=True)
LINKS = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(("x", "y.png")), st.sampled_from((*FOLDERS, "nowhere"))),
    max_size=4,
    unique_by=lambda link: link[:2],
)


@settings(max_examples=2000 if IS_LONG else 50, deadline=None)
@given(
    files=FILES,
    links=LINKS,
    kind=st.sampled_from(tuple(READERS)),
    image_folder=st.sampled_from((None, "images", *ELSEWHERE)),
)
def test_files_that_are_read_or_named_are_all_files(files, links, kind, image_folder):
    top = Path(tempfile.mkdtemp())
    root = top / "set"
    try:
        for folder in (*FOLDERS, *ELSEWHERE):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for folder, name in files:
            content = CONTENTS.get(Path(name).suffix)
            write({name: content}, root / folder) if not name.endswith("heic") else (root / folder / name).touch()
        folder_links = set()
        for folder, name, target in links:
            path = root / folder / name
            path.symlink_to(root / target)
            if path.is_dir():
                folder_links.add(path)
        image_path = image_folder and root / image_folder
        reading = Reading(root, ReadSettings(names=("cat",), allow_unlabelled=True, image_path=image_path))
        with suppress(UserError):  # most of these trees are no dataset; they have an account all the same
            read(reading, kind)

        account = reading.account()

        tops = {root, *({image_path.resolve()} if image_path else ())}
        walks = [walk for each in tops for walk in os.walk(each)]
        is_in = {Path(folder) / name for folder, _, names in walks for name in names} - folder_links
        named = [path for paths in account.left.values() for path in paths]
        real = {Path(os.path.realpath(path.parent)) / path.name for path in named}
        assert len(real) == len(named)
        extra = len(real & folder_links)  # links that lead back are named too
        assert account.num_read + len(named) == len(is_in) + extra
        assert {link for link in folder_links if link.parent.is_relative_to(link.resolve())} <= real
    finally:
        shutil.rmtree(top)

from pathlib import Path

import pytest

from retinanet.data.unread import reason_unread
from retinanet.predict.sources import find_sources
from retinanet.runtime.errors import UserError
from retinanet.runtime.tree import Tree


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.PNG", "notes.md", "deep/er/c.webp", "deep/clip.MP4", "deep/.hidden.jpg", "odd[1].jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def names(*sources: str, leave_out: str = "predictions") -> list[str]:
    return [source.name for source in find_sources(sources, Path(leave_out))]


def test_a_folder_with_all_below_it(folder):
    assert names("in") == ["a.jpg", "b.PNG", "odd[1].jpg", "deep/clip.MP4", "deep/er/c.webp"]
    assert [source.is_video for source in find_sources(["in"], Path("out"))] == [False, False, False, True, False]


def test_a_file_that_several_sources_name_is_found_once(folder):
    everything, paths = names("in"), sorted(each.path for each in find_sources(["in"], Path("out")))
    for source in ("in/**", "in/**/*"):
        found = [each.path for each in find_sources([source], Path("out"))]
        assert sorted({*found} - {Path("in/notes.md")}) == paths
        assert len(found) == len({*found}) > 4
    assert names("in/a.jpg", "in") == everything
    assert names("in", "./in/../in/a.jpg") == everything


def test_what_is_written_is_not_read_again(folder):
    assert names(".", leave_out="in/deep") == ["in/a.jpg", "in/b.PNG", "in/odd[1].jpg"]


def test_a_glob_finds_what_was_written_only_where_it_starts_there(folder):
    assert names("in/**/*.[wP]*", leave_out="in/deep") == ["b.PNG"]
    assert names("*", leave_out="in/deep") == ["a.jpg", "b.PNG", "odd[1].jpg"]
    assert names("in/deep/er/*", leave_out="in/deep") == ["c.webp"]
    assert names("in/*.jpg", leave_out=".") == ["a.jpg", "odd[1].jpg"]


def test_files_globs_and_lists(folder):
    Path("in/list.txt").write_text("# some\n\nin/a.jpg\ndeep/er/c.webp\n")

    assert names("in/a.jpg", "in/deep/*") == ["a.jpg", "clip.MP4", "c.webp"]
    assert names("in/**/*.webp") == ["c.webp"]
    assert names("in/odd[1].jpg") == ["odd[1].jpg"]
    assert names("in/odd*") == ["odd[1].jpg"]
    assert [source.path for source in find_sources(["in/list.txt"], Path("out"))] == [
        Path("in/a.jpg"),
        Path("in/deep/er/c.webp"),
    ]


def test_a_glob_reads_no_lists_and_leaves_broken_links_to_be_reported(folder):
    Path("in/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")  # a label file
    Path("in/gone.jpg").symlink_to("nowhere.jpg")
    assert sorted(names("in/[ag]*")) == ["a.jpg", "gone.jpg"]
    Path("in/a.txt").write_text("in/b.PNG\n")
    assert names("in/*.txt") == ["in/b.PNG"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file or folder"),
        ("in/*.gif", r"in/\*.gif: no image or video found"),
        ("empty", "empty: no image or video found"),
        ("bad.txt", r"bad.txt:2: is not UTF-8 text \(byte 0xff\)"),
    ],
)
def test_a_source_with_nothing_is_a_mistake(folder, source, message):
    Path("empty").mkdir()
    Path("bad.txt").write_bytes(b"in/a.jpg\n\xff")

    with pytest.raises(UserError, match=message):
        names("in/a.jpg", source)


def test_a_list_written_on_windows(folder):
    """With a byte order mark and its ending in capitals."""
    Path("in/LIST.TXT").write_text("\ufeffin/a.jpg\r\nin/b.PNG\r\n", encoding="utf-8", newline="")
    assert names("in/LIST.TXT") == ["in/a.jpg", "in/b.PNG"]


def test_a_listed_path_is_first_one_from_here(folder):
    for place in ("in/a.jpg", "in/in/a.jpg", "in/in/list.txt"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_bytes(b"")
    Path("in/list.txt").write_text("in/a.jpg\nb.PNG\n")
    found = [source.path for source in find_sources(["in/list.txt"], Path("out"))]
    assert found == [Path("in/a.jpg"), Path("in/b.PNG")]


def test_links_to_folders_are_followed_and_hidden_folders_left_out_and_all_files_accounted_for(folder):
    Path("more").mkdir()
    Path("more/d.jpg").touch()
    Path("in/.ipynb_checkpoints").mkdir()
    Path("in/.ipynb_checkpoints/a-checkpoint.jpg").touch()
    Path("in/link").symlink_to(Path("more").absolute())
    Path("in/deep/back").symlink_to(Path("in").absolute())
    tree = Tree()

    sources = find_sources(["in"], Path("in/deep/er"), tree)

    assert [source.name for source in sources] == ["a.jpg", "b.PNG", "odd[1].jpg", "deep/clip.MP4", "link/d.jpg"]
    for source in sources:
        tree.read(source.path)
    assert tree.account(reason_unread).line(Path("in")) == (
        "Files: 5 read, 5 not read: 2 hidden (.ipynb_checkpoints/a-checkpoint.jpg), 1 in the output folder "
        "(deep/er/c.webp), 1 linking back to a folder around it (deep/back), 1 of another kind (notes.md)"
    )

"""Files are written whole, even if several processes write the same one at a time."""

import json
import multiprocessing
import os

import pytest
from support.result_rows import row

from retinanet.coco.results import write_results
from retinanet.runtime import files
from retinanet.runtime.files import remove_unfinished, written_whole

TRIALS = 40


def results_of(writer):
    return [row(1 + i % 3, writer, (i, writer, 5, 5)) for i in range(2000 * writer)]


def write_in_time(folder, writer, start):
    """Write one file after the other, each when the other writer begins it too."""
    for trial in range(TRIALS):
        start.wait(timeout=20)
        write_results(results_of(writer), folder / f"{trial}.json")


def test_of_two_writers_at_a_time_one_is_the_last(tmp_path):
    fork = multiprocessing.get_context("fork")  # fresh interpreters would load all libraries first
    start = fork.Barrier(2)
    writers = [fork.Process(target=write_in_time, args=(tmp_path, writer, start)) for writer in (1, 2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(timeout=120)
    assert [process.exitcode for process in writers] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {f"{trial}.json" for trial in range(TRIALS)}
    whole = [results_of(1), results_of(2)]
    assert all(json.loads(path.read_text()) in whole for path in tmp_path.iterdir())


def test_a_writer_inside_of_another_ones_time(tmp_path):
    path = tmp_path / "a.json"
    with written_whole(path) as slow:
        slow.write("slow")
        with written_whole(path) as quick:
            quick.write("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_link_in_place_of_the_unfinished_file_is_not_followed(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0123abcd")
    (tmp_path / "precious").write_text("mine")
    for name, target in (("a.0123abcd.part", "precious"), ("b.0123abcd.part", "none")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(FileExistsError), written_whole(tmp_path / name[0], mode):
            pass
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "a").exists()


def test_what_others_may_read_is_as_the_user_has_it_set(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "a") as file:
            file.write("a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    left = ("last.pt.0123abcd.part", "last.pt.part")
    others = ("last.pt", "last.pt.0123abcd", "last.pt.mine.part", "best.pt.0123abcd.part")
    for name in (*left, *others):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, "last.pt")
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_killed_writer_leaves_what_is_removed(tmp_path):
    fork = multiprocessing.get_context("fork")

    def write_and_die():
        with written_whole(tmp_path / "last.pt"):
            os._exit(9)

    process = fork.Process(target=write_and_die)
    process.start()
    process.join(timeout=60)
    (left,) = os.listdir(tmp_path)
    assert left.startswith("last.pt.")
    remove_unfinished(tmp_path, "last.pt")
    assert not os.listdir(tmp_path)


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    with written_whole(path) as file:
        file.write("whole")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["whole"]

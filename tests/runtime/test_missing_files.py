"""A message about a missing file names the file that was probably meant."""

import unicodedata

import pytest

from retinanet.runtime.missing_files import why_missing


@pytest.mark.parametrize(
    ("listed", "existing", "difference"),
    [
        ("Photo 1.PNG", "Photo 1.png", "in capitals and small letters"),
        ("Photo%201.png", "Photo 1.png", "characters written as %20"),
        ("Photo 1.png", "Photo%201.png", "characters written as %20"),
        (unicodedata.normalize("NFC", "Müller.png"), unicodedata.normalize("NFD", "Müller.png"), "Unicode form"),
        (unicodedata.normalize("NFD", "MÜLLER.png"), unicodedata.normalize("NFC", "Müller.png"), "small letters"),
        ("Train/a.png", "train/a.PNG", "in capitals and small letters"),
    ],
)
def test_near_misses_are_named(tmp_path, listed, existing, difference):
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.touch()
    reason = why_missing(tmp_path / listed)
    assert reason.startswith(f" {path} is there: the names differ ")
    assert difference in reason


def test_what_is_ambiguous_or_not_there_is_not_named(tmp_path):
    for name in ("a.png", "A.png"):
        (tmp_path / name).touch()
    assert why_missing(tmp_path / "a.PNG") == ""
    assert why_missing(tmp_path / "b.png") == ""
    assert why_missing(tmp_path / "no" / "such" / "b.png") == ""


def test_broken_links_are_told_as_links(tmp_path):
    (tmp_path / "a.png").symlink_to("gone.png")
    (tmp_path / "train").symlink_to(tmp_path / "unmounted")
    (tmp_path / "loop").symlink_to("loop")
    assert why_missing(tmp_path / "a.png") == f" {tmp_path}/a.png is a link to gone.png, which can't be reached."
    assert f"{tmp_path}/train is a link to {tmp_path}/unmounted" in why_missing(tmp_path / "train" / "a.png")
    assert f"{tmp_path}/loop is a link to loop" in why_missing(tmp_path / "loop")

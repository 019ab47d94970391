"""No picture of vis.py replaces another one of the same run."""

import shutil
from pathlib import Path

from support.data_folder import change_json


def test_pictures_of_equal_names_are_numbered(script, coco_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = coco_path / "images" / "val"
    names = ["a/b.png", "a_b.png", "A_B.jpeg", "1.png", "1.jpg"]
    (folder / "a").mkdir()
    for name in names:
        if name != "1.png":
            shutil.copy(folder / "1.png", folder / name)

    def rename(content):
        for entry, name in zip(content["images"], names, strict=True):
            entry.update(file_name=name, width=64, height=64)

    change_json(coco_path / "val.json", rename)
    Path("vis.png").mkdir()  # the usual picture, which isn't written
    run = script("vis", "--coco_path", coco_path, "--num_images", 5, "--output_path", "pictures")
    assert run.code == 0, run.err
    assert "5 pictures in pictures" in run.out
    written = sorted(path.name.lower() for path in Path("pictures").iterdir())
    assert written == ["1.png", "1_2.png", "a_b.png", "a_b_2.png", "a_b_3.png"]

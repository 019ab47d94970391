"""Finds a set's files in this project's layout, COCO's or Roboflow's; for other data, says which command to use."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from retinanet.coco.formats import ARCHIVES, IMAGE_SUFFIXES, LOOKED_AT, ROBOFLOW, WORDS, format_of
from retinanet.runtime.errors import UserError, either
from retinanet.runtime.tree import MACOSX, Tree
from retinanet.settings.convert import COCO, CSV

VAL = "val"
SETS = ("train", VAL, "test")
KINDS = ("instances", "person_keypoints", "image_info")  # COCO's annotation files that name images and classes
WITHOUT_SPLIT = ("annotations", "result", "labels", "default", "instances")  # file names that don't name a set
PARTS = ("images", "jpegimages", "labels", "annotations", "imagesets", "obj_train_data")  # folders in an export


def spellings_of(set_name: str) -> tuple[str, ...]:
    """Returns the names that a set may have on disk: Roboflow calls val "valid"."""
    return (VAL, "valid") if set_name == VAL else (set_name,)


def known_set(name: str) -> str | None:
    """Maps a name such as Train, valid or test2017 to train, val or test; returns None for other names."""
    word = re.sub(r"[-_]?20\d\d$", "", name.lower())
    others = {"training": "train", "valid": VAL, "validation": VAL, "dev": VAL, "testing": "test"}
    return others.get(word, word if word in SETS else None)


def set_name_of(name: str) -> str:
    """Returns this project's name for a set: "val" for "valid" and "validation", otherwise `name` itself."""
    return VAL if name.lower() in ("valid", "validation") else name


def set_told_by(file: Path) -> str | None:
    """Returns the set (train, val or test) indicated by the file's name or else by its folder's; None if unclear."""
    words = {known_set(word) for word in re.split("[^a-z0-9]+", file.stem.lower())} - {None}
    return words.pop() if len(words) == 1 else known_set(file.parent.name) if not words else None


def export_above(folder: Path) -> Path | None:
    """Returns the exported dataset if `folder` is only a part of it, such as its labels/ folder; otherwise None."""
    place = Path(os.path.abspath(folder))
    while known_set(place.name) or place.name.lower() in PARTS:
        place = place.parent
        if format_of(place, Tree(LOOKED_AT)):
            return place
    return None


def export_below(folder: Path) -> Path:
    """Descends while a folder holds nothing but another folder, as in unpacked archives; returns the last folder.

    Doesn't descend into a folder whose name marks it as a part of a dataset, such as train/ or labels/.
    """
    try:
        places = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MACOSX]
    except OSError:
        return folder
    is_part = len(places) == 1 and (known_set(places[0].name) or places[0].name.lower() in PARTS)
    if len(places) != 1 or is_part or places[0].is_symlink() or not places[0].is_dir():
        return folder
    return export_below(places[0])


def find_annotation_file(coco_path: str | Path, set_name: str) -> Path:
    """Returns a set's annotation file, in this project's layout ({set}.json), COCO's (annotations/) or Roboflow's.

    Raises UserError if there is no such file.
    """
    root = Path(coco_path)
    if not root.is_dir():
        if root.exists() and (instead := advice_for(root)):
            raise UserError(f"{root}: is {instead}")
        raise UserError(f"{root}: no such data folder. Set --coco_path (layout: data/README.md).")
    files = [root / f"{set_name}.json"]
    files += [root / "annotations" / f"{kind}_{set_name}.json" for kind in KINDS]
    files += [root / name / ROBOFLOW for name in spellings_of(set_name)]
    for file in files:
        if file.is_file():
            return file
    folders = [path.parent.name for path in root.glob(f"*/{ROBOFLOW}")]
    roboflows = {VAL if name in spellings_of(VAL) else name for name in folders}
    existing = sorted({*other_sets(files[0]), *other_sets(files[1]), *roboflows} - {*WITHOUT_SPLIT})
    if not existing and (instead := advice_for(root)):
        raise UserError(f"{root}: holds no {files[0].name}, but {instead}")
    sets = f" The folder has the sets {', '.join(existing)}." if existing else ""
    flags = either("--train_set", "--val_set", "--set_name", "--sets")
    raise UserError(
        f"{files[0]}: no such annotation file, and no {files[1]} either.{sets} Put the file there"
        f"{f', or choose another set with {flags}' * bool(flags)}.{split_advice(root, set_name, existing)}"
    )


def split_advice(root: Path, missing: str, existing: Sequence[str]) -> str:
    """If `missing` is val and only train exists, returns advice, preceded by a space, on splitting train; else ""."""
    if missing != VAL or [*existing] != ["train"]:
        return ""
    output = root.with_name(f"{root.name}2") if root.name else "data2"
    words = ("python", "-m", "retinanet.convert", str(root), "--split", "0.8", "0.2", "--output_path", str(output))
    return f" To make val of a part of train: {shlex.join(words)}"


def find_image_folder(coco_path: str | Path, set_name: str, *, must_exist: bool = True) -> Path:
    """Returns the image folder of a set: images/{set}/, or {set}/ as in COCO and Roboflow, or images/ as in CVAT.

    If none exists, raises UserError, or returns images/{set}/ if `must_exist` is False.
    """
    folders = [Path(coco_path) / "images" / set_name, *(Path(coco_path) / name for name in spellings_of(set_name))]
    for folder in folders:
        if folder.is_dir():
            return folder
    together = Path(coco_path) / "images"
    if together.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in together.iterdir()):
        return together
    if not must_exist:
        return folders[0]
    raise UserError(f"{folders[0]}: no such image folder, and no {folders[1]} either. Put the images there.")


def other_sets(annotation_file: Path) -> dict[str, Path]:
    """Returns the other annotation files in the folder of `annotation_file`, keyed by set name."""
    files = sorted(path for path in annotation_file.parent.glob("*.json") if path != annotation_file)
    return {re.sub(f"^({'|'.join(KINDS)})_", "", path.stem): path for path in files}


def advice_for(coco_path: Path) -> str | None:
    """Returns advice on a `coco_path` that isn't a data folder: what it is and what to do; None if unrecognised."""
    quoted = shlex.quote(str(coco_path))
    if coco_path.suffix.lower() in IMAGE_SUFFIXES and coco_path.is_file():
        return f"an image. To detect in it: python -m retinanet.predict {quoted}"
    if coco_path.suffix.lower() in ARCHIVES and coco_path.is_file():
        return "an archive. Unpack it, and use the folder"
    tree = Tree(LOOKED_AT)
    kind = format_of(coco_path, tree)
    if kind == COCO and coco_path.is_file():
        return (
            "a COCO file, but a folder is needed. To split it into train and val: python -m retinanet.convert "
            f"{quoted} --split 0.8 0.2 --output_path data"
        )
    if kind is not None:
        words = {CSV: "as CSV", COCO: f"in {WORDS[kind]}, but in another layout"}.get(kind, f"in {WORDS[kind]}")
        return f"annotations {words}. To convert them: python -m retinanet.convert {quoted} --output_path data"
    are_images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in tree.files(coco_path))
    if are_images:
        return f"images without annotations. To detect in them: python -m retinanet.predict {quoted}"
    return None

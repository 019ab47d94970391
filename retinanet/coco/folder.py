"""Where the files of a set are in the data folder: the suite's layout, COCO's own, or Roboflow's."""

import re
from pathlib import Path

from retinanet.coco.other_formats import advice_for
from retinanet.runtime.errors import UserError

ROBOFLOW = "_annotations.coco.json"  # beside its images


def find_annotation_file(coco_path: str | Path, set_name: str) -> Path:
    """The annotation file of a set: {set}.json, COCO's annotations/instances_{set}.json or Roboflow's. UserError if
    none."""
    root = Path(coco_path)
    if not root.is_dir():
        if root.exists() and (instead := advice_for(root)):
            raise UserError(f"{root}: is {instead}")
        raise UserError(f"{root}: no such data folder. Give it with --coco_path; data/README.md shows its layout.")
    files = [root / f"{set_name}.json"]
    files += [root / "annotations" / f"{kind}_{set_name}.json" for kind in ("instances", "image_info")]
    files += [root / name / ROBOFLOW for name in _names_of(set_name)]
    for file in files:
        if file.is_file():
            return file
    roboflows = {"val" if path.parent.name == "valid" else path.parent.name for path in root.glob(f"*/{ROBOFLOW}")}
    there = sorted({*other_sets(files[0]), *other_sets(files[1]), *roboflows})
    if not there and (instead := advice_for(root)):
        raise UserError(f"{root}: holds no {files[0].name}, but {instead}")
    sets = f" The sets there are {', '.join(there)}." if there else ""
    raise UserError(
        f"{files[0]}: no such annotation file, and no {files[1]} either.{sets} Put it there, or name another set with "
        "--train_set, --val_set, --set_name or --sets."
    )


def find_image_folder(coco_path: str | Path, set_name: str, *, must_exist: bool = True) -> Path:
    """The image folder of a set: images/{set}/, or COCO's and Roboflow's {set}/.

    If none exists: UserError, or images/{set}/ where it need not exist.
    """
    folders = [Path(coco_path) / "images" / set_name, *(Path(coco_path) / name for name in _names_of(set_name))]
    for folder in folders:
        if folder.is_dir():
            return folder
    if not must_exist:
        return folders[0]
    raise UserError(f"{folders[0]}: no such image folder, and no {folders[1]} either. Put the images there.")


def _names_of(set_name: str) -> tuple[str, ...]:
    """Of a set's folder: Roboflow's val is called valid."""
    return (set_name, "valid") if set_name == "val" else (set_name,)


def other_sets(annotation_file: Path) -> dict[str, Path]:
    """The other annotation files in the folder of `annotation_file`, by the names of their sets."""
    files = sorted(path for path in annotation_file.parent.glob("*.json") if path != annotation_file)
    return {re.sub("^(instances|image_info)_", "", path.stem): path for path in files}

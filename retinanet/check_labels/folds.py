"""Divides a set into folds, and writes a data folder for each, with the fold as val and the other folds as train."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.folder import VAL
from retinanet.coco.stratified import group_keys, stratified
from retinanet.data.dataset import CocoDataset
from retinanet.data.similar import Looks, groups_of
from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.printable import counted
from retinanet.settings.check_labels import LEAST_FOLDS

TRAIN = "train"  # the set of a fold's data folder that its run is trained on; VAL is the fold itself


def fold_folder(output_path: Path, fold: int) -> Path:
    """Returns the run folder of a fold; `fold` counts from 0."""
    return output_path / f"fold_{fold + 1}"


def folds_of(annotations: Annotations, looks: Looks, num_folds: int, group_by: str | None, seed: int) -> np.ndarray:
    """Returns each image's fold (0, 1, ...): int64 [N]. Images of a group, and images that look alike, share a fold.

    Each fold gets about its share of every class. Raises UserError if there are fewer groups than folds.
    """
    count = len(annotations.image_ids)
    names = [annotations.file_name(index) for index in range(count)]
    numbers, groups = np.unique(groups_of(group_keys(names, group_by), looks), return_inverse=True)
    if len(numbers) < num_folds:
        remedy = f"Lower --folds to {len(numbers)}, or add images" if len(numbers) >= LEAST_FOLDS else "Add images"
        raise UserError(
            f"{annotations.path}: --folds {num_folds} needs as many groups of images, but the set of "
            f"{counted(count, 'image')} has only {len(numbers)}, because images that look "
            f"alike{' or match' * bool(group_by)} stay together. {remedy}."
        )
    counts: list[Counter[int]] = [Counter() for _ in numbers]
    owners = owners_of(annotations)[~annotations.crowds]
    for group, label in zip(groups[owners].tolist(), annotations.labels[~annotations.crowds].tolist(), strict=True):
        counts[group][label] += 1
    sizes = np.bincount(groups).tolist()
    folds = np.zeros(len(numbers), np.int64)
    for fold, members in enumerate(stratified(counts, sizes, [1 / num_folds] * num_folds, seed)):
        folds[members] = fold
    return folds[groups]


def write_fold_data(folder: Path, content: dict[str, Any], dataset: CocoDataset, is_held_out: np.ndarray) -> None:
    """Writes the data folder of a fold: the set VAL has the images marked in `is_held_out` [N], TRAIN all others.

    `content` is parsed from the set's annotation file. Annotation files that exist already are left as they are.
    Raises UserError if such a file differs from what would be written, or if writing fails.
    """
    annotations = dataset.annotations
    held_out = set(annotations.image_ids[is_held_out].tolist())
    for name, is_val in ((TRAIN, False), (VAL, True)):
        path, images = folder / f"{name}.json", folder / "images" / name
        part = content | {
            "images": [image for image in content["images"] if (image["id"] in held_out) == is_val],
            "annotations": [
                each for each in content.get("annotations") or [] if (each["image_id"] in held_out) == is_val
            ],
        }
        text = json.dumps(part)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{path}: was written for other annotations, or with another --folds or --group_by. Choose another "
                "--output_path, or remove that folder to begin again."
            )
        with file_error_explained(path, "can't be written", "Choose another --output_path."):
            images.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with written_whole(path) as file:
                    file.write(text)
            if images.is_symlink() and images.resolve() != dataset.image_folder.resolve():
                images.unlink()  # the images were moved
            if not images.is_symlink():
                images.symlink_to(dataset.image_folder.resolve(), target_is_directory=True)

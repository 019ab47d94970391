"""Splits images at random: each set gets its fraction of every class, and groups of images stay together."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retinanet.coco.folder import SETS
from retinanet.coco.stratified import group_keys, stratified
from retinanet.convert.sets import Labelled, LabelledImage, LabelledSet, with_distinct_names
from retinanet.data.images import read_upright
from retinanet.data.similar import Looks, groups_of, joined_looks, looks_of
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.streams import hides_bars

THREADS = 8  # the number of threads that decode images to compare them


def split(
    labelled: Labelled, shares: Sequence[float], seed: int, group_by: str | None, *, group_similar: bool = False
) -> Labelled:
    """Divides all images into train, val and, if there are three `shares`, test; `shares` are fractions of the images.

    Images of a group (see group_keys) stay together and, with `group_similar`, so do images that look alike. If several
    images are the same file, only the first is used. Raises UserError if a set would be empty or,
    with `group_similar`, if an image can't be read.
    """
    labelled, repeated = _each_file_once(labelled)
    names = [image.name for labelled_set in labelled.sets for image in labelled_set.images]
    keys = group_keys(names, group_by)
    labelled, notes = with_distinct_names(labelled)
    images = [image for labelled_set in labelled.sets for image in labelled_set.images]
    looks = _looks(images) if group_similar else None
    of_groups: dict[int, list[LabelledImage]] = {}
    for image, group in zip(images, groups_of(keys, looks).tolist(), strict=True):
        of_groups.setdefault(group, []).append(image)
    groups = list(of_groups.values())
    if group_similar:
        sizes = [len(group) for group in groups if len(group) > 1]
        largest = f", the largest of {max(sizes)}" if sizes else ""
        notes.append(
            f"{counted(sum(sizes), 'image')} of {len(images)} stay together in {counted(len(sizes), 'group')}{largest}"
        )
    counts = [Counter(box.label for image in group for box in image.boxes) for group in groups]
    divided = stratified(counts, [len(group) for group in groups], shares, seed)
    parts = [[image for number in numbers for image in groups[number]] for numbers in divided]
    for name, part in zip(SETS, parts, strict=False):
        if not part:
            raise UserError(
                f"--split: {len(images)} images in {len(groups)} groups are too few for a set {name}. Raise its "
                "fraction, or split into fewer sets."
            )
    sorted_parts = [sorted(part, key=lambda image: image.name) for part in parts]
    content = _merged([labelled_set.content for labelled_set in labelled.sets])
    sets = [LabelledSet(name, part, content) for name, part in zip(SETS, sorted_parts, strict=False)]
    return labelled._replace(sets=sets, notes=[*labelled.notes, *repeated, *notes])


def _each_file_once(labelled: Labelled) -> tuple[Labelled, list[str]]:
    """Drops repeated image files, within and across sets; also returns a list with a note if any were dropped."""
    seen: set[Path] = set()
    repeated: list[Path] = []

    def is_new(image: LabelledImage) -> bool:
        file = image.path.resolve()
        if file in seen:
            repeated.append(image.path)
            return False
        seen.add(file)
        return True

    sets = [each._replace(images=list(filter(is_new, each.images))) for each in labelled.sets]
    if not repeated:
        return labelled, []
    return labelled._replace(sets=sets), [
        f"images that occur several times are used once, with their first labels; left out: {len(repeated)}, such as "
        f"{repeated[0]}"
    ]


def _looks(images: Sequence[LabelledImage]) -> Looks:
    """Returns the Looks of the images. Raises UserError if an image can't be read."""
    looks = looks_of(lambda index: read_upright(images[index].path, sys.maxsize), len(images), THREADS)
    return joined_looks(list(tqdm(looks, "Images", total=len(images), leave=False, disable=hides_bars())))


def _merged(contents: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Returns the first COCO file's content apart from images and annotations, with the licences of all files."""
    if contents[0] is None:
        return None
    lists = [content["licenses"] for content in contents if content and isinstance(content.get("licenses"), list)]
    licences: list[Any] = []
    for licence in (licence for each in lists for licence in each):
        licences += [licence] if licence not in licences else []
    return contents[0] | ({"licenses": licences} if lists else {})

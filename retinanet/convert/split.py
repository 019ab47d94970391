"""Splits images at random, so that each set gets its fraction of every class and groups of images stay together."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retinanet.coco.folder import SETS
from retinanet.coco.stratified import group_keys, stratified
from retinanet.convert.sets import Labelled, LabelledImage, LabelledSet, with_distinct_names
from retinanet.runtime.errors import UserError


def split(labelled: Labelled, shares: Sequence[float], seed: int, group_by: str | None) -> Labelled:
    """Divides all images into train, val and, if there are three `shares`, test; `shares` are fractions of the images.

    Images of a group (see group_keys) stay together. Raises UserError if a set would stay empty.
    """
    names = [image.name for labelled_set in labelled.sets for image in labelled_set.images]
    labelled, notes = with_distinct_names(labelled)
    images = [image for labelled_set in labelled.sets for image in labelled_set.images]
    of_keys: dict[str, list[LabelledImage]] = {}
    for image, key in zip(images, group_keys(names, group_by), strict=True):
        of_keys.setdefault(key, []).append(image)
    groups = list(of_keys.values())
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
    return labelled._replace(sets=sets, notes=[*labelled.notes, *notes])


def _merged(contents: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Returns what the first COCO file holds besides its images and annotations, with the licences of all files."""
    if contents[0] is None:
        return None
    lists = [content["licenses"] for content in contents if content and isinstance(content.get("licenses"), list)]
    licences: list[Any] = []
    for licence in (licence for each in lists for licence in each):
        licences += [licence] if licence not in licences else []
    return contents[0] | ({"licenses": licences} if lists else {})

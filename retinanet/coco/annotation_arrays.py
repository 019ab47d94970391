"""The checks of annotation_entries, on the arrays of all entries at once."""

from itertools import pairwise

import numpy as np

from retinanet.coco.annotation_entries import leaves_folder
from retinanet.coco.annotations import Annotations
from retinanet.coco.json_values import NUMBER_LIMIT, is_id, is_text
from retinanet.coco.packed_names import PackedNames

DTYPES = {
    "image_ids": np.dtype(np.int64),
    "sizes": np.dtype(np.int64),
    "first": np.dtype(np.int64),
    "boxes": np.dtype(np.float64),
    "labels": np.dtype(np.int64),
    "crowds": np.dtype(np.bool_),
    "areas": np.dtype(np.float64),
}


def are_sound(annotations: Annotations) -> bool:
    """Whether `annotations`, from an untrusted source, could come from a file that passes the checks.

    One second for seven million boxes: there is no loop over entries and no copy of the boxes.
    """
    num_images, num_boxes = len(annotations.image_ids), len(annotations.labels)
    shapes = {
        "image_ids": (num_images,),
        "sizes": (num_images, 2),
        "first": (num_images + 1,),
        "boxes": (num_boxes, 4),
        "labels": (num_boxes,),
        "crowds": (num_boxes,),
        "areas": (num_boxes,),
    }
    arrays = {name: getattr(annotations, name) for name in DTYPES}
    if any(array.dtype != DTYPES[name] or array.shape != shapes[name] for name, array in arrays.items()):
        return False
    first = annotations.first
    return bool(
        num_images > 0
        and len(np.unique(annotations.image_ids)) == num_images
        and annotations.sizes.min() > 0
        and first[0] == 0
        and first[-1] == num_boxes
        and (first[:-1] <= first[1:]).all()
        and _are_classes(annotations)
        and (num_boxes == 0 or _are_objects(annotations))
        and len(annotations.file_names) == num_images
        and _stay_in_folder(annotations.file_names)
    )


def _are_classes(annotations: Annotations) -> bool:
    """Whether there are classes, in rising order of their ids, each with a name."""
    names, ids = annotations.class_names, annotations.category_ids
    if not isinstance(names, list) or not 0 < len(names) == len(ids):
        return False
    return (
        all(map(is_text, names)) and all(map(is_id, ids)) and all(one < following for one, following in pairwise(ids))
    )


def _are_objects(annotations: Annotations) -> bool:
    boxes, areas, labels = annotations.boxes, annotations.areas, annotations.labels
    # min and max of an array with a NaN are NaN, which fails every comparison.
    return bool(
        boxes.min() > -NUMBER_LIMIT
        and boxes.max() < NUMBER_LIMIT
        and boxes[:, 2:].min() >= 0
        and areas.min() >= 0
        and areas.max() < NUMBER_LIMIT
        and labels.min() >= 0
        and labels.max() < len(annotations.class_names)
        and annotations.crowds.view(np.uint8).max() <= 1
    )


def _stay_in_folder(names: PackedNames) -> bool:
    """Whether all `names`, at least one, are valid UTF-8, and none leaves the image folder."""
    text, ends = names.text, names.ends
    starts = np.concatenate([[0], ends[:-1]])
    if text.shape != (ends[-1],) or not (starts < ends).all():  # none is empty
        return False
    try:
        text.tobytes().decode()
    except UnicodeDecodeError:
        return False
    if (text[starts] & 0b1100_0000 == 0b1000_0000).any():  # a name that starts in the middle of a letter
        return False
    dots = np.flatnonzero((text[:-1] == ord(".")) & (text[1:] == ord(".")))
    places = np.concatenate([starts[text[starts] == ord("/")], dots, np.flatnonzero(text == 0)])
    doubtful = np.unique(np.searchsorted(ends, places, side="right")).tolist()
    return not any(leaves_folder(names[index]) for index in doubtful)

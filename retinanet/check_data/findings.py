"""Defines the kinds of findings in a dataset (mistakes and notes), and collects the findings of each kind."""

from collections.abc import Sequence
from typing import NamedTuple

from retinanet.data.learnable import SCARCE

MOST_EXAMPLES = 3  # the maximum number of examples shown for a finding


class Kind(NamedTuple):
    """Describes a kind of finding; `fix` is empty if none is needed, or if the examples contain it."""

    says: str
    fix: str = ""
    is_mistake: bool = True
    shows_names: bool = False  # True if the examples are the names of classes, which the short report shows too
    is_hopeless: bool = False  # True if training accepts the set, but AP stays at 0 with any network

    @property
    def is_refused(self) -> bool:
        """Returns True if training refuses sets with such a finding."""
        return self.says.endswith("training refuses")


# In the order of the report. The names must not change: people and programs look for them in logs.
FINDING_KINDS = {
    # Training refuses a set with any of these; the checks in annotation_entries, annotations and images raise them.
    "category_malformed": Kind("a category whose id is not a whole number, or without a name; training refuses"),
    "category_id_twice": Kind("a category id that appears twice; training refuses"),
    "image_id_malformed": Kind("an image id that is not a whole number; training refuses"),
    "image_id_twice": Kind("an image id that appears twice; training refuses"),
    "file_name_missing": Kind("an image without file_name; training refuses"),
    "file_name_malformed": Kind("a file_name that is not valid Unicode; training refuses"),
    "file_name_outside": Kind("a file_name that leaves the image folder; training refuses"),
    "image_size_malformed": Kind("an image without a usable height and width; training refuses"),
    "file_name_windows": Kind("a file_name that looks like a Windows path; training refuses"),
    "image_unknown": Kind("an annotation of an image that is not listed; training refuses"),
    "category_unknown": Kind("an annotation of a category that is not listed; training refuses"),
    "id_malformed": Kind("an image_id or category_id that is not a whole number; training refuses"),
    "box_missing": Kind("a segmentation without a bbox; training refuses"),
    "box_in_fractions": Kind("boxes that look like fractions of their image (YOLO's); training refuses"),
    "box_malformed": Kind("a bbox that is not four finite numbers; training refuses"),
    "box_negative": Kind("a bbox of negative size; training refuses"),
    "area_malformed": Kind("an area that is not a finite number of at least 0; training refuses"),
    "crowd_malformed": Kind("an iscrowd that is neither 0 nor 1; training refuses"),
    "classes_differ": Kind("categories that differ from the first set's; training refuses"),
    "image_missing": Kind("an image file that does not exist; training refuses"),
    "image_unreadable": Kind("a file that can't be opened as an image; training refuses"),
    "image_damaged": Kind("an image file that is cut off or damaged after its header; training refuses"),
    "image_too_large": Kind("an image with more pixels than --max_pixels; training refuses"),
    "image_size_differs": Kind("an image file whose size differs from the annotated size; training refuses"),
    # These concern the first set, which counts as the training set; the checks in learnable raise them.
    "nothing_to_learn": Kind(
        "no object to learn; training refuses",
        "Name the sets with --sets, the training set first, or annotate objects.",
    ),
    "nothing_reached": Kind(
        "no object that an anchor overlaps enough to match it; with the default matcher, training refuses",
    ),
    # Training drops these, or learns from them although they are probably wrong.
    "one_box_for_all": Kind(
        "the same box for all objects; training warns", "Check how the annotations were exported.", is_hopeless=True
    ),
    "box_empty": Kind(
        "a box without width or height; training drops it", "Draw it again, or remove it.", is_mistake=False
    ),
    "box_outside": Kind(
        "a box completely outside its image; training drops it",
        "Write (left, top, width, height) in pixels of this image, or remove it.",
        is_mistake=False,
    ),
    "box_as_corners": Kind(
        "a box past its image in a set whose boxes fit as corners: they look like (x1, y1, x2, y2)",
        "Write (x1, y1, x2 - x1, y2 - y1) in all annotations of the set.",
        is_hopeless=True,
    ),
    "box_tiny": Kind(
        "a box less than a pixel wide or high after the resize",
        "Remove it, or raise --min_side and --max_side.",
        is_mistake=False,
    ),
    "area_too_large": Kind(
        "an area larger than its box; evaluation sorts objects into small, medium and large by area",
        "Write the object's area in square pixels, or omit area.",
    ),
    "annotation_id_twice": Kind("an annotation id that appears twice", "Give each annotation a different id."),
    "object_twice": Kind("an object annotated twice: same image, class and box", "Keep one of them."),
    "category_name_twice": Kind(
        "a category with the same name as another", "Merge the two, or give them different names."
    ),
    "file_twice": Kind(
        "an image file that is listed under two image ids: an object annotated under one id is background under the "
        "other",
        "List the file once, with all its annotations.",
    ),
    "image_twice": Kind(
        "an image with the same pixels as another image of its set",
        "Keep one of them, with the objects of both.",
    ),
    "image_in_two_sets": Kind(
        "an image whose pixels are also in an earlier set: memorised objects count as found",
        "Remove it from one of the sets.",
    ),
    "image_like_in_two_sets": Kind(
        "an image that looks like one of an earlier set, such as a copy or the next frame of a video: memorised "
        "objects count as found",
        "Look at the drawn pairs; remove the images from one of the sets, or split the dataset again: convert --split "
        "--group_similar.",
    ),
    "boxes_read_otherwise": Kind("boxes whose sides lie on visible edges only if the boxes are read in another way"),
    "boxes_fit_no_reading": Kind(
        "boxes that fit their own pictures no better than other pictures, like labels of the wrong images",
        "Look at the boxes, and at the ids, names or order by which labels were assigned to images.",
    ),
    # These are worth knowing, but are not mistakes.
    "boxes_untold": Kind("boxes for which the pixels don't show how they must be read", is_mistake=False),
    "set_without_objects": Kind("no objects to compare with, as in published test sets", is_mistake=False),
    "class_without_objects": Kind("a class without an object in the set", is_mistake=False, shows_names=True),
    "class_scarce": Kind(f"a class with fewer than {SCARCE} objects in the set", is_mistake=False),
    "image_without_objects": Kind("an image without an object: training learns it as background", is_mistake=False),
    "crowd": Kind("a crowd (iscrowd 1): trained as background, or ignored with --ignore_crowds", is_mistake=False),
    "box_clipped": Kind("a box that extends a pixel or more past its image: training clips it", is_mistake=False),
    "box_rounded": Kind("a box that extends less than a pixel past its image: training clips it", is_mistake=False),
    "image_turned": Kind("an image rotated by its EXIF orientation, to match its annotated size", is_mistake=False),
    "image_not_turned": Kind(
        "an image whose EXIF orientation is ignored, because its annotated size fits without it (--exif raw); check "
        "its boxes (vis.py --exif raw --image_id)",
        is_mistake=False,
    ),
    "boxes_turned": Kind(
        "an image annotated in the size of its stored pixels: picture and boxes are turned upright by its EXIF "
        "orientation",
        is_mistake=False,
    ),
    "frame_untold": Kind(
        "an image turned upright by its EXIF orientation, whose size doesn't show whether its boxes refer to the "
        "upright picture, as is assumed; check them (vis.py --image_id). If they refer to the stored pixels, use "
        "--exif raw",
        is_mistake=False,
    ),
    "white_level_far": Kind(
        "16-bit pictures that use less than half of the range up to white, or go past it: they look dark, or are cut "
        "off",
        "Train with the --white_level that the example names.",
        is_mistake=False,
    ),
    "image_unlisted": Kind("an image file in the folder that the annotation file does not list", is_mistake=False),
}


class Finding(NamedTuple):
    """The findings of one kind in one set."""

    set_name: str
    kind: str
    num_found: int
    examples: list[str]


class Findings:
    """The findings in all sets of a data folder."""

    def __init__(self) -> None:
        self._by_set_and_kind: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def add(self, set_name: str, kind: str, examples: Sequence[str], count: int | None = None) -> None:
        """Adds findings of `kind`. If `count` is given, `examples` may be just the first few."""
        assert kind in FINDING_KINDS
        before, shown = self._by_set_and_kind.get((set_name, kind), (0, []))
        count = len(examples) if count is None else count
        if count:
            self._by_set_and_kind[set_name, kind] = before + count, [*shown, *examples][:MOST_EXAMPLES]

    def of(self, is_mistake: bool) -> list[Finding]:
        """Returns the mistakes or the notes, sorted by kind, in the order of FINDING_KINDS, and then by set."""
        return [
            Finding(set_name, kind, *count_and_examples)
            for name, described in FINDING_KINDS.items()
            if described.is_mistake == is_mistake
            for (set_name, kind), count_and_examples in self._by_set_and_kind.items()
            if kind == name
        ]

"""Corrects the labels of a COCO set according to a file of decisions, which the page of check_labels saves."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.coco.annotation_cache import digest_of
from retinanet.coco.json_values import is_id, is_number, is_text
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.runtime.errors import UserError
from retinanet.runtime.json_files import read_json

RIGHT, BOX, CLASS, BOTH, ADD, DELETE, SKIP = WORDS = ("right", "box", "class", "both", "add", "delete", "skip")
UNCHANGING = {RIGHT: "confirmed", SKIP: "skipped"}
WITH_BOX, WITH_CLASS = (BOX, BOTH, ADD), (CLASS, BOTH, ADD)
PARTS = ("bbox", "category_id")  # the parts of an annotation that decisions can change
OUTLINE = "segmentation"
OF_BOX = (OUTLINE, "area")  # keys of an annotation that don't fit another box
MOST_SHOWN = 5  # the maximum number of changes that are listed
AGAIN = "Save the decisions again."
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,19}")
Parts = dict[str, Any]  # new values of PARTS; None: the annotation is deleted


class Decision(NamedTuple):
    name: str  # for messages
    word: str  # one of WORDS
    suspect: Any
    image_id: int
    annotation_id: Any
    category_id: int | None  # None unless the decision has a class
    bbox: tuple[float, ...] | None  # in the frame of the annotation file; None unless the decision has a box


class Decisions(NamedTuple):
    path: Path
    set_name: str
    file: str  # the path of the annotation file when it was checked
    digest: str  # of the annotation file
    decisions: list[Decision]


def read_decisions(path: Path) -> Decisions:
    """Reads a file of decisions. Raises UserError, naming the decision, if a decision is invalid."""
    content = read_json(path)
    about = content.get("annotations") if isinstance(content, dict) else None
    entries = content.get("decisions") if isinstance(content, dict) else None
    if (
        not isinstance(about, dict)
        or not all(map(is_text, (about.get("sha256"), about.get("file"), content.get("set_name"))))
        or not isinstance(entries, list)
        or not all(isinstance(entry, dict) for entry in entries)
    ):
        raise UserError(f"{path}: isn't a file of decisions that the page of check_labels saved. Check the path.")
    decisions: list[Decision] = []
    for number, entry in enumerate(map(_with_whole_ids, entries), 1):
        name = f"decision {number} ({entry.get('decision')!r} on suspect {entry.get('suspect')})"
        if fault := _fault_in(entry):
            raise UserError(f"{path}: {name} {fault}. {AGAIN}")
        word = entry["decision"]
        decisions.append(
            Decision(
                name,
                word,
                entry.get("suspect"),
                entry["image_id"],
                entry.get("annotation_id"),
                entry["category_id"] if word in WITH_CLASS else None,
                tuple(map(float, entry["bbox"])) if word in WITH_BOX else None,
            )
        )
    return Decisions(path, content["set_name"], about["file"], about["sha256"], decisions)


def _with_whole_ids(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns a decision with its image and category ids as numbers; the page saves ids of 2**53 and above as text."""
    names = ("image_id", "category_id")
    return entry | {name: int(entry[name]) for name in names if WHOLE_NUMBER.fullmatch(str(entry.get(name)))}


def _key(annotation_id: Any) -> str:
    """Returns an annotation id as text, because the page saves as text any number that JavaScript would change."""
    return annotation_id if isinstance(annotation_id, str) else json.dumps(annotation_id)


def _fault_in(entry: dict[str, Any]) -> str:
    word, box = entry.get("decision"), entry.get("bbox")
    if word not in WORDS:
        return f"is none of {', '.join(WORDS)}"
    for key in ("image_id", "category_id") if word in WITH_CLASS else ("image_id",):
        if not is_id(entry.get(key)):
            return f"has the {key} {entry.get(key)!r}, not a whole number"
    is_box = isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) > 0
    if word in WITH_BOX and not is_box:
        return f"has the bbox {box!r}, not [left, top, width, height] with an area"
    return ""


def corrected(labelled: Labelled, decisions: Decisions) -> tuple[Labelled, list[str]]:
    """Returns the dataset with one of its sets corrected, and lines that say what changed.

    Raises UserError if the set has changed since the decisions were made, if it lacks an image, an annotation or a
    category that they name, or if two decisions contradict each other.
    """
    chosen = _set_of(labelled, decisions)
    _require_known(decisions, chosen, labelled.category_ids or [])
    wanted, added = _joined(decisions)
    ids = [entry.get("id") for image in chosen.images for entry in image.box_entries or ()]
    correction = _Correction(labelled, wanted, added, next_id=max(filter(is_id, ids), default=0) + 1)
    changed = chosen._replace(images=[correction.corrected(image) for image in chosen.images])
    counts = correction.counts + Counter(
        UNCHANGING[decision.word] for decision in decisions.decisions if decision.word in UNCHANGING
    )
    summary = ", ".join(f"{what} ({count})" for what, count in counts.items()) or "none"
    lines = [f"Decisions on {chosen.name}: {summary}", *correction.lines[:MOST_SHOWN]]
    if len(correction.lines) > MOST_SHOWN:
        lines.append(f"  ... and {len(correction.lines) - MOST_SHOWN} more")
    if correction.num_outlines:
        lines.append(f"Outlines (segmentation) left out, as their box changed: {correction.num_outlines}")
    return labelled._replace(sets=[changed if each is chosen else each for each in labelled.sets]), lines


class _Correction:
    """Corrects the labels of images, and notes what changes."""

    def __init__(
        self,
        labelled: Labelled,
        wanted: dict[tuple[int, str], Parts],
        added: dict[int, list[Parts]],
        next_id: int,
    ) -> None:
        self._labelled, self._wanted, self._added, self._next_id = labelled, wanted, added, next_id
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self.num_outlines = 0

    def corrected(self, image: LabelledImage) -> LabelledImage:
        assert image.image_id is not None
        boxes: list[Box] = []
        entries: list[dict[str, Any]] = []
        for box, entry in zip(image.boxes, image.box_entries or (), strict=True):
            parts = self._wanted.get((image.image_id, _key(entry.get("id"))), {})
            new = None if None in parts.values() else self._with(box, parts)
            if new != box:
                self._note(image, entry["id"], box, new)
            if new is None:
                continue
            if new[1:5] != box[1:5]:
                self.num_outlines += bool(entry.get(OUTLINE))
                entry = {key: value for key, value in entry.items() if key not in OF_BOX or value == []}
            boxes.append(new)
            entries.append(entry)
        for parts in self._added.get(image.image_id, ()):
            boxes.append(self._with(Box(0, 0, 0, 0, 0), parts))
            entries.append({"id": self._next_id})
            self._note(image, self._next_id, None, boxes[-1])
            self._next_id += 1
        return image._replace(boxes=boxes, box_entries=entries)

    def _with(self, box: Box, parts: Parts) -> Box:
        """Returns the box, with its class and sides replaced by any that are in `parts`."""
        if "category_id" in parts:
            box = box._replace(label=(self._labelled.category_ids or []).index(parts["category_id"]))
        left, top, width, height = parts.get("bbox", box[1:5])
        return box._replace(left=left, top=top, width=width, height=height)

    def _note(self, image: LabelledImage, annotation_id: Any, old: Box | None, new: Box | None) -> None:
        if old is None or new is None:
            kind = "deleted" if new is None else "added"
        else:
            changes = {"box": old[1:5] != new[1:5], "class": old.label != new.label}
            kind = f"{' and '.join(part for part, is_new in changes.items() if is_new)} changed"
        self.counts[kind] += 1
        names = self._labelled.class_names
        texts = [f"{names[box.label]} {[round(side, 2) for side in box[1:5]]}" for box in (old, new) if box]
        self.lines.append(f"  {kind}: annotation {annotation_id} of {image.name}, {' -> '.join(texts)}")


def _require_known(decisions: Decisions, chosen: LabelledSet, category_ids: list[int]) -> None:
    """Raises UserError if a decision is about an image, an annotation or a category that the set doesn't have."""
    ids = {
        image.image_id: Counter(_key(entry.get("id")) for entry in image.box_entries or ()) for image in chosen.images
    }
    for decision in decisions.decisions:
        fault = ""
        if decision.image_id not in ids:
            fault = f"image {decision.image_id}, which is not"
        elif decision.category_id is not None and decision.category_id not in category_ids:
            fault = f"category {decision.category_id}, which is not"
        elif decision.word not in (*UNCHANGING, ADD):
            count = ids[decision.image_id][_key(decision.annotation_id)]
            where = f"annotation {decision.annotation_id} of image {decision.image_id}"
            if decision.annotation_id is None or count != 1:
                fault = f"{where}, which {'occurs several times' if count > 1 else 'is not'}"
        if fault:
            raise UserError(f"{decisions.path}: {decision.name} is about {fault} in {chosen.file}. {AGAIN}")


def _set_of(labelled: Labelled, decisions: Decisions) -> LabelledSet:
    same = [each for each in labelled.sets if each.file is not None and digest_of(each.file) == decisions.digest]
    if not same:
        files = ", ".join(str(each.file) for each in labelled.sets)
        raise UserError(
            f"{decisions.path}: was made for {decisions.file} (the set {decisions.set_name}), which has changed since, "
            f"or isn't one of {files}. Convert the annotations that were checked, or check these and decide again."
        )
    return next((each for each in same if each.name == decisions.set_name), same[0])


def _joined(decisions: Decisions) -> tuple[dict[tuple[int, str], Parts], dict[int, list[Parts]]]:
    """Returns the changes to annotations, by image id and annotation id, and the annotations to add, by image id.

    A new box and a new class for one annotation are combined. Raises UserError if two decisions contradict each other.
    """
    wanted: dict[tuple[int, str], Parts] = {}
    added: dict[int, list[Parts]] = {}
    origins: dict[tuple[Any, ...], tuple[Decision, Any]] = {}

    def require_equal(decision: Decision, key: tuple[Any, ...], value: Any, what: str) -> None:
        earlier, earlier_value = origins.setdefault(key, (decision, value))
        if earlier_value != value:
            raise UserError(
                f"{decisions.path}: {earlier.name} and {decision.name} contradict each other about {what}. Remove one."
            )

    for decision in decisions.decisions:
        if decision.suspect is not None:
            require_equal(decision, (repr(decision.suspect),), decision[1:], f"suspect {decision.suspect}")
        parts = {part: getattr(decision, part) for part in PARTS if getattr(decision, part) is not None}
        parts = dict.fromkeys(PARTS) if decision.word == DELETE else parts
        if decision.word == ADD:
            of_image = added.setdefault(decision.image_id, [])
            of_image += [parts] if parts not in of_image else []
            continue
        annotation = decision.image_id, _key(decision.annotation_id)
        for part, value in parts.items():
            what = f"annotation {decision.annotation_id} of image {decision.image_id}"
            require_equal(decision, (*annotation, part), value, what)
        wanted[annotation] = wanted.get(annotation, {}) | parts
    return wanted, added

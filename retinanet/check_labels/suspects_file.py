"""Writes the suspects in a set as JSON, with boxes as in the annotation file, and summarises the suspects in text."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.check_labels.suspects import KINDS, Suspect
from retinanet.coco.annotations import Annotations, as_in_file, check_annotations
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.json_files import read_json
from retinanet.runtime.printable import counted

SUSPECTS = "label_suspects.json"
MOST_SUSPECTS = 20_000  # the maximum number that are written
LEAST_PROBABILITY = 0.01
LIKELY = 0.5  # suspects with at least this probability are counted by kind
MOST_SHOWN = 5


def suspects_content(suspects: Sequence[Suspect], annotations: Annotations, set_name: str) -> dict[str, Any]:
    """Returns the content of the file, which lists the most probable suspects."""
    content = read_json(annotations.path)
    _, places = check_annotations(annotations.path, content)
    ids = [content["annotations"][place].get("id") for place in places.tolist()]
    chosen = [each for each in suspects if each.probability >= LEAST_PROBABILITY][:MOST_SUSPECTS]
    return {
        "set_name": set_name,
        "annotations": {"file": str(annotations.path), "sha256": annotations.fingerprint},
        "classes": [
            {"id": identity, "name": name}
            for identity, name in zip(annotations.category_ids, annotations.class_names, strict=True)
        ],
        "suspects": [_row(number, suspect, annotations, ids) for number, suspect in enumerate(chosen)],
    }


def _row(number: int, suspect: Suspect, annotations: Annotations, ids: Sequence[Any]) -> dict[str, Any]:
    row, other, suggested = suspect.annotation, suspect.other_annotation, suspect.suggested_label
    boxes = {
        "bbox": None if row is None else annotations.boxes[row],
        "suggested_bbox": suspect.suggested_box,
        "other_bbox": None if other is None else annotations.boxes[other],
    }
    upright = {name: None if box is None else box.round(2).tolist() for name, box in boxes.items()}
    images = np.array([suspect.image])
    in_file = {
        name: None if box is None else as_in_file(box[None], images, annotations)[0].round(2).tolist()
        for name, box in boxes.items()
    }
    is_turned = in_file != upright
    return {
        "id": number,
        "kind": suspect.kind,
        "probability": round(suspect.probability, 4),
        "image_id": int(annotations.image_ids[suspect.image]),
        "file_name": annotations.file_name(suspect.image),
        "annotation_id": None if row is None else ids[row],
        "category_id": None if row is None else annotations.category_ids[annotations.labels[row]],
        "suggested_category_id": None if suggested is None else annotations.category_ids[suggested],
        "score": None if suspect.score is None else round(suspect.score, 4),
        "other_annotation_id": None if other is None else ids[other],
        **in_file,
        **({f"picture_{name}": box for name, box in upright.items()} if is_turned else {}),
    }


def write_suspects(content: dict[str, Any], path: Path) -> None:
    """Writes the file atomically. Raises UserError if that fails."""
    with file_error_explained(path, "can't be written", "Choose another --output_path."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json.dumps(content))


def summary_lines(content: dict[str, Any], num_labels: int) -> list[str]:
    """Returns the printed summary: the likely mistakes by kind, and the first suspects."""
    suspects, names = content["suspects"], {each["id"]: each["name"] for each in content["classes"]}
    likely = Counter(each["kind"] for each in suspects if each["probability"] >= LIKELY)
    by_kind = ", ".join(f"{kind} {likely[kind]}" for kind in KINDS if likely[kind])
    expected = sum(each["probability"] for each in suspects)
    total = f"{counted(len(suspects), 'suspect')} among {counted(num_labels, 'label')}"
    return [
        f"{total}; about {expected:.0f} of them are mistakes, judging by their probabilities",
        f"Probability {LIKELY} or more: {by_kind or 'none'}",
        *(_line(each, names) for each in suspects[:MOST_SHOWN]),
        *_unnamed_lines(suspects),
    ]


def _unnamed_lines(suspects: list[dict[str, Any]]) -> list[str]:
    """Returns a line about suspect labels that no decision can change, because their ids are missing or repeated."""
    labels = [(each["image_id"], repr(each["annotation_id"])) for each in suspects if each["bbox"]]
    times, missing = Counter(labels), repr(None)
    count = sum(identity == missing or times[image, identity] > 1 for image, identity in labels)
    if not count:
        return []
    return [
        f"Note: {counted(count, 'suspect label')} without an id, or with the id of another label in the image: no "
        "decision can change them. python -m retinanet.convert writes the set with new ids: check that set instead"
    ]


def _line(suspect: dict[str, Any], names: dict[int, str]) -> str:
    label, suggested = (names.get(suspect[key]) for key in ("category_id", "suggested_category_id"))
    what = f" {label}" if label else ""
    arrow = f" -> {suggested}" if suggested and label else f" {suggested}" if suggested else ""
    return f"  {suspect['probability']:.2f} {suspect['kind']}:{what}{arrow} in {suspect['file_name']}"

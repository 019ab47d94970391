"""Writes datasets in the formats YOLO, PASCAL VOC and CSV. `fitted` has removed what these can't express."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from retinanet.convert.place import IMAGES, Layout, place_set
from retinanet.convert.sets import Box, Labelled, LabelledImage
from retinanet.settings.convert import CSV, VOC, YOLO

DATA, SCORES = "data.yaml", "scores.json"
NOT_IN_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")  # line breaks and what YAML calls unprintable


def write_yolo(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes images/{set}/, labels/{set}/ and data.yaml.

    Scores go to scores.json, as a list per label file in the order of its rows, because tools differ in how they read a
    row of six numbers: some refuse it, and some read the sixth as a track number.
    """
    scores: dict[str, list[float | None]] = {}
    has_scores = any(
        box.score is not None for labelled_set in labelled.sets for image in labelled_set.images for box in image.boxes
    )

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            for image in labelled_set.images:
                path = (place / "labels" / labelled_set.name / image.name).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(_yolo_lines(image)), encoding="utf-8")
                scores[path.relative_to(place).as_posix()] = [box.score for box in image.boxes]
        lines = [f"{labelled_set.name}: images/{labelled_set.name}" for labelled_set in labelled.sets]
        lines += ["names:", *(f"  {number}: {_quoted(name)}" for number, name in enumerate(labelled.class_names))]
        (place / DATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
        if has_scores:
            (place / SCORES).write_text(json.dumps(scores), encoding="utf-8")

    labels = [f"labels/{labelled_set.name}" for labelled_set in labelled.sets]
    layout = Layout(YOLO, IMAGES, [*labels, DATA, *[SCORES] * has_scores], write)
    place_set(labelled, folder, images, layout)


def _yolo_lines(image: LabelledImage) -> Iterator[str]:
    for label, left, top, width, height, *_ in image.boxes:
        x, y = (left + width / 2) / image.width, (top + height / 2) / image.height
        yield f"{label} {x:.6f} {y:.6f} {width / image.width:.6f} {height / image.height:.6f}\n"


def _quoted(name: str) -> str:
    """Returns the name as a YAML string. JSON escapes mean the same in YAML, except escaped surrogate pairs."""
    return NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(name, ensure_ascii=False))


def write_voc(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes JPEGImages/, Annotations/, ImageSets/Main/{set}.txt and labels.txt. Crowds become difficult objects."""

    def write(place: Path) -> None:
        lists = place / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for labelled_set in labelled.sets:
            for image in labelled_set.images:
                path = (place / "Annotations" / image.name).with_suffix(".xml")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(_voc_lines(image, labelled.class_names)) + "\n", encoding="utf-8")
            stems = "".join(f"{Path(image.name).with_suffix('').as_posix()}\n" for image in labelled_set.images)
            (lists / f"{labelled_set.name}.txt").write_text(stems, encoding="utf-8")
        (place / "labels.txt").write_text("".join(f"{name}\n" for name in labelled.class_names), encoding="utf-8")

    layout = Layout(VOC, "JPEGImages", ("Annotations", "ImageSets", "labels.txt"), write)
    place_set(labelled, folder, images, layout)


def _voc_lines(image: LabelledImage, class_names: list[str]) -> Iterator[str]:
    size = f"<width>{image.width}</width><height>{image.height}</height><depth>3</depth>"
    yield "<annotation>"
    yield f"  <folder>JPEGImages</folder>\n  <filename>{escape(image.name)}</filename>"
    yield f"  <size>{size}</size>\n  <segmented>0</segmented>"
    for box in image.boxes:
        x1, y1, x2, y2 = _voc_pixels(box, image)
        yield f"  <object>\n    <name>{escape(class_names[box.label])}</name>\n    <pose>Unspecified</pose>"
        yield f"    <truncated>0</truncated>\n    <difficult>{int(box.is_crowd)}</difficult>"
        if box.score is not None:
            yield f"    <confidence>{box.score!r}</confidence>"
        yield f"    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        yield "  </object>"
    yield "</annotation>"


def _voc_pixels(box: Box, image: LabelledImage) -> list[int]:
    """Returns a box's first column and row, then its last column and row, counted from 1.

    Even a box narrower than a pixel gets at least one column and one row.
    """
    starts, ends = [], []
    for start, length, side in ((box.left, box.width, image.width), (box.top, box.height, image.height)):
        first, last = math.floor(start + 0.5) + 1, math.floor(start + length + 0.5)
        if last < first:  # narrower than a pixel
            first = last = min(math.floor(start + length / 2) + 1, side)
        starts.append(first)
        ends.append(last)
    return starts + ends


def write_csv(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes {set}.csv, classes.csv and images/{set}/."""

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            with open(place / f"{labelled_set.name}.csv", "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                for image in labelled_set.images:
                    path = f"{IMAGES.format(labelled_set.name)}/{image.name}"
                    for label, left, top, width, height, *_ in image.boxes:
                        numbers = [f"{number:.10g}" for number in (left, top, left + width, top + height)]
                        table.writerow([path, *numbers, labelled.class_names[label]])
                    if not image.boxes:
                        table.writerow([path, "", "", "", "", ""])
        with open(place / "classes.csv", "w", encoding="utf-8", newline="") as file:
            rows = [(name, number) for number, name in enumerate(labelled.class_names)]
            csv.writer(file, lineterminator="\n").writerows(rows)

    tables = [f"{labelled_set.name}.csv" for labelled_set in labelled.sets]
    place_set(
        labelled,
        folder,
        images,
        Layout(CSV, IMAGES, [*tables, "classes.csv"], write),
    )

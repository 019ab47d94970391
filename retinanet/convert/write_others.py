"""Writes sets in the YOLO and PASCAL VOC formats, using hotcoco, and as CSV."""

import csv
import json
from collections import Counter
from pathlib import Path

from retinanet.convert.sets import Labelled, LabelledSet
from retinanet.convert.write_coco import coco_content, place_whole, put_images
from retinanet.runtime.errors import UserError


def write_yolo(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes images/{set}/, labels/{set}/ and data.yaml, without crowds, which the format can't express."""

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            put_images(labelled_set, place / "images" / labelled_set.name, images)
            labels = place / "labels" / labelled_set.name
            _hotcoco(labelled, labelled_set, place, "to_yolo", labels)
            (labels / "data.yaml").unlink()
            for image in labelled_set.images:  # hotcoco drops the folders from the names
                path = (labels / image.name).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                (labels / path.name).rename(path)
        lines = [f"{labelled_set.name}: images/{labelled_set.name}" for labelled_set in labelled.sets]
        lines += ["names:", *(f"  {number}: {json.dumps(name)}" for number, name in enumerate(labelled.class_names))]
        (place / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    names = [f"{kind}/{labelled_set.name}" for labelled_set in labelled.sets for kind in ("images", "labels")]
    place_whole(folder, [*names, "data.yaml"], write)


def write_voc(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes JPEGImages/, Annotations/, ImageSets/Main/{set}.txt and labels.txt. Crowds become difficult objects."""

    def write(place: Path) -> None:
        all_images = [image for labelled_set in labelled.sets for image in labelled_set.images]
        put_images(labelled.sets[0]._replace(images=all_images), place / "JPEGImages", images)
        lists = place / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for labelled_set in labelled.sets:
            _hotcoco(labelled, labelled_set, place, "to_voc", place)
            stems = "".join(f"{Path(image.name).stem}\n" for image in labelled_set.images)
            (lists / f"{labelled_set.name}.txt").write_text(stems, encoding="utf-8")

    place_whole(folder, ("JPEGImages", "Annotations", "ImageSets", "labels.txt"), write)


def write_csv(labelled: Labelled, folder: Path, images: str) -> None:
    """Writes {set}.csv, classes.csv and images/{set}/, without crowds, which the format can't express."""

    def write(place: Path) -> None:
        for labelled_set in labelled.sets:
            set_name = labelled_set.name
            put_images(labelled_set, place / "images" / set_name, images)
            with open(place / f"{set_name}.csv", "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                for image in labelled_set.images:
                    path = f"images/{set_name}/{image.name}"
                    objects = [box for box in image.boxes if not box.is_crowd]
                    for box in objects:
                        right, bottom = box.left + box.width, box.top + box.height
                        numbers = [f"{number:.10g}" for number in (box.left, box.top, right, bottom)]
                        table.writerow([path, *numbers, labelled.class_names[box.label]])
                    if not objects:
                        table.writerow([path, "", "", "", "", ""])
        with open(place / "classes.csv", "w", encoding="utf-8", newline="") as file:
            rows = [(name, number) for number, name in enumerate(labelled.class_names)]
            csv.writer(file, lineterminator="\n").writerows(rows)

    names = [
        name for labelled_set in labelled.sets for name in (f"images/{labelled_set.name}", f"{labelled_set.name}.csv")
    ]
    place_whole(folder, [*names, "classes.csv"], write)


def _hotcoco(labelled: Labelled, labelled_set: LabelledSet, place: Path, converter: str, folder: Path) -> None:
    """Lets hotcoco write a set to `folder`. Raises UserError if two images would get the same annotation file."""
    from hotcoco import COCO

    stems = Counter(Path(image.name).stem for image in labelled_set.images)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise UserError(f"the set {labelled_set.name} has {stems[twice[0]]} images called {twice[0]}. Rename them.")
    file = place / f"{labelled_set.name}.coco.json"
    file.write_text(json.dumps(coco_content(labelled_set, labelled)), encoding="utf-8")
    getattr(COCO(str(file)), converter)(str(folder))
    file.unlink()

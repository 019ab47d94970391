"""The other way: sets written in YOLO's and PASCAL VOC's format, by hotcoco, and as CSV."""

import csv
import json
from collections import Counter
from pathlib import Path

from retinanet.convert.sets import Labelled, LabelledSet
from retinanet.convert.write_coco import coco_content, place_whole, put_images
from retinanet.runtime.errors import UserError


def write_yolo(labelled: Labelled, folder: Path, images: str) -> None:
    """images/{set}/, labels/{set}/ and data.yaml. Crowds are left out, which the format has not."""

    def write(place: Path) -> None:
        for one in labelled.sets:
            put_images(one, place / "images" / one.name, images)
            labels = place / "labels" / one.name
            _hotcoco(labelled, one, place, "to_yolo", labels)
            (labels / "data.yaml").unlink()
            for image in one.images:  # hotcoco's names have no folders
                path = (labels / image.name).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                (labels / path.name).rename(path)
        lines = [f"{one.name}: images/{one.name}" for one in labelled.sets]
        lines += ["names:", *(f"  {number}: {json.dumps(name)}" for number, name in enumerate(labelled.class_names))]
        (place / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    names = [f"{kind}/{one.name}" for one in labelled.sets for kind in ("images", "labels")]
    place_whole(folder, [*names, "data.yaml"], write)


def write_voc(labelled: Labelled, folder: Path, images: str) -> None:
    """JPEGImages/, Annotations/, ImageSets/Main/{set}.txt and labels.txt. Crowds become difficult."""

    def write(place: Path) -> None:
        together = labelled.sets[0]._replace(images=[image for one in labelled.sets for image in one.images])
        put_images(together, place / "JPEGImages", images)
        lists = place / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for one in labelled.sets:
            _hotcoco(labelled, one, place, "to_voc", place)
            stems = "".join(f"{Path(image.name).stem}\n" for image in one.images)
            (lists / f"{one.name}.txt").write_text(stems, encoding="utf-8")

    place_whole(folder, ("JPEGImages", "Annotations", "ImageSets", "labels.txt"), write)


def write_csv(labelled: Labelled, folder: Path, images: str) -> None:
    """{set}.csv, classes.csv and images/{set}/. Crowds are left out, which the format has not."""

    def write(place: Path) -> None:
        for one in labelled.sets:
            put_images(one, place / "images" / one.name, images)
            with open(place / f"{one.name}.csv", "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                for image in one.images:
                    path = f"images/{one.name}/{image.name}"
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

    names = [name for one in labelled.sets for name in (f"images/{one.name}", f"{one.name}.csv")]
    place_whole(folder, [*names, "classes.csv"], write)


def _hotcoco(labelled: Labelled, one: LabelledSet, place: Path, converter: str, folder: Path) -> None:
    """Have hotcoco write a set into `folder`. UserError where two images would have the same file."""
    from hotcoco import COCO

    stems = Counter(Path(image.name).stem for image in one.images)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise UserError(f"the set {one.name} has {stems[twice[0]]} images called {twice[0]}. Rename them.")
    file = place / f"{one.name}.coco.json"
    file.write_text(json.dumps(coco_content(one, labelled)), encoding="utf-8")
    getattr(COCO(str(file)), converter)(str(folder))
    file.unlink()

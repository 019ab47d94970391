"""Plants mistakes in a set's labels, and measures how well check_labels finds them.

python -m benchmarks.accuracy.label_mistakes plant --coco_path $VOC5 --draw 1 --output_path FOLDER/draw1
"""

import argparse
import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy.label_rankings import Entry, average_precision, best_hotcoco, best_objectlab, naive_queue
from retinanet.check_labels.suspects_file import SUSPECTS
from retinanet.coco.annotations import Annotations, check_annotations
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.coco.results import default_results_path, load_results, read_results
from retinanet.evaluation.matches import box_ious
from retinanet.reports.tables import aligned
from retinanet.runtime.console import run, say
from retinanet.runtime.json_files import read_json
from retinanet.settings.options import whole_number

NUM_PLANTED = 54  # of each kind
MOVE = 0.3  # of the box's sides, in both directions
CLASS_CHANGE, DELETION, MOVED = KINDS = ("class change", "deletion", "moved box")
PLANTED = "planted.json"
LABEL_CHECK = "label_check"  # check_labels's --output_path in the spoiled folder
FOUND_IOU = 0.5  # of the box of a reported missing object with the deleted box


def plant(content: dict[str, Any], num: int, draw: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Plants `num` mistakes of each kind, each in a different object; returns the changed `content` and the mistakes.

    Each mistake is stored as its kind and the original annotation.
    """
    drawn = random.Random(draw)
    content = copy.deepcopy(content)
    objects = {each["id"]: each for each in content["annotations"] if not each.get("iscrowd")}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    chosen = drawn.sample(sorted(objects), len(KINDS) * num)
    mistakes = []
    for place, annotation_id in enumerate(chosen):
        annotation, kind = objects[annotation_id], KINDS[place // num]
        mistakes.append({"kind": kind, "annotation": copy.deepcopy(annotation)})
        if kind == CLASS_CHANGE:
            others = [each["id"] for each in content["categories"] if each["id"] != annotation["category_id"]]
            annotation["category_id"] = drawn.choice(others)
        elif kind == DELETION:
            content["annotations"].remove(annotation)
        else:
            annotation["bbox"] = moved(annotation["bbox"], sizes[annotation["image_id"]], drawn)
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    return content, mistakes


def moved(box: list[float], size: tuple[int, int], drawn: random.Random) -> list[float]:
    """Moves `box` (left, top, width, height) by MOVE times its sides, and clips it to the image's (width, height)."""
    (left, top, width, height), (columns, rows) = box, size
    left += drawn.choice((-MOVE, MOVE)) * width
    top += drawn.choice((-MOVE, MOVE)) * height
    right, bottom = min(left + width, columns), min(top + height, rows)
    left, top = max(left, 0.0), max(top, 0.0)
    return [left, top, right - left, bottom - top]


def write_spoiled(coco_path: Path, folder: Path, num: int, draw: int) -> None:
    """Writes a data folder with the spoiled train set, the clean val set, links to the images, and PLANTED."""
    content, mistakes = plant(read_json(find_annotation_file(coco_path, "train")), num, draw)
    write_folder(coco_path, folder, content)
    (folder / PLANTED).write_text(json.dumps({"draw": draw, "mistakes": mistakes}, indent=1))
    say(f"{len(mistakes)} mistakes planted in {len(content['annotations'])} objects: {folder}")


class Spoiled(NamedTuple):
    """A spoiled set, and the mistakes that were planted in it."""

    annotations: Annotations
    annotation_ids: list[int]
    mistakes: list[dict[str, Any]]

    @property
    def is_spoiled(self) -> np.ndarray:
        """Marks the images with mistakes: bool [N]."""
        return np.isin(self.annotations.image_ids, [each["annotation"]["image_id"] for each in self.mistakes])


def read_spoiled(folder: Path) -> Spoiled:
    path = find_annotation_file(folder, "train")
    content = read_json(path)
    annotations, places = check_annotations(path, content)
    ids = [content["annotations"][place]["id"] for place in places.tolist()]
    return Spoiled(annotations, ids, read_json(folder / PLANTED)["mistakes"])


def entries_of(suspects: Sequence[dict[str, Any]], spoiled: Spoiled) -> list[Entry]:
    """Returns the suspects of a label_suspects.json as entries."""
    images = {identity: row for row, identity in enumerate(spoiled.annotations.image_ids.tolist())}
    rows = {identity: row for row, identity in enumerate(spoiled.annotation_ids)}
    return [
        Entry(
            images[each["image_id"]],
            None if each["annotation_id"] is None else rows[each["annotation_id"]],
            None if each["annotation_id"] is not None else np.array(each["suggested_bbox"]),
        )
        for each in suspects
    ]


def hits_of(entries: Sequence[Entry], spoiled: Spoiled) -> list[int | None]:
    """Returns, for each entry, the index of the mistake that it finds and no earlier entry has found, or None.

    An entry finds a mistake if it refers to the changed annotation, or if its box and the deleted one have an IoU of at
    least FOUND_IOU.
    """
    images = {identity: row for row, identity in enumerate(spoiled.annotations.image_ids.tolist())}
    labels, deletions = dict[int, int](), dict[int, list[int]]()
    for number, mistake in enumerate(spoiled.mistakes):
        if mistake["kind"] == DELETION:
            deletions.setdefault(images[mistake["annotation"]["image_id"]], []).append(number)
        else:
            labels[mistake["annotation"]["id"]] = number
    hits: list[int | None] = []
    for entry in entries:
        candidates: list[int] = []
        if entry.annotation is not None:
            identity = spoiled.annotation_ids[entry.annotation]
            candidates = [labels[identity]] if identity in labels else []
        elif entry.box is not None:
            candidates = [
                number
                for number in deletions.get(entry.image, ())
                if iou_of(entry.box, spoiled.mistakes[number]["annotation"]["bbox"]) >= FOUND_IOU
            ]
        hits.append(next((number for number in candidates if number not in hits), None))
    return hits


def iou_of(box: np.ndarray, other: Sequence[float]) -> float:
    return float(box_ious(box[None, None], np.array(other, float)[None, None], np.zeros((1, 1), bool))[0, 0, 0])


def queue_row(name: str, entries: Sequence[Entry], spoiled: Spoiled) -> list[str]:
    """Returns the table row of a queue.

    With N planted mistakes, the row gives the fractions of them found in the first N and in the first 3N entries (the
    latter also by kind), and the AP of the ranking of images.
    """
    count, hits = len(spoiled.mistakes), hits_of(entries, spoiled)
    found = {number for number in hits[: 3 * count] if number is not None}
    kinds = []
    for kind in KINDS:
        of_kind = {number for number, each in enumerate(spoiled.mistakes) if each["kind"] == kind}
        kinds.append(f"{len(of_kind & found) / len(of_kind):.2f}")
    first = {entry.image: -place for place, entry in reversed([*enumerate(entries)])}
    scores = np.array([first.get(image, -len(entries)) for image in range(len(spoiled.annotations.image_ids))])
    ap = average_precision(scores, spoiled.is_spoiled)
    planted = sum(number is not None for number in hits[:count]) / count
    return [name, f"{planted:.3f}", f"{len(found) / count:.3f}", *kinds, f"{ap:.3f}"]


def measure(folders: Sequence[Path]) -> list[str]:
    """Returns a table that compares the rankings in each spoiled folder."""
    rows = []
    for folder in folders:
        spoiled = read_spoiled(folder)
        suspects = read_json(folder / LABEL_CHECK / SUSPECTS)["suspects"]
        results = folder / LABEL_CHECK / default_results_path("train")
        found = load_results(results, spoiled.annotations)
        rows.append(queue_row(f"{folder.name}: check_labels", entries_of(suspects, spoiled), spoiled))
        rows.append(queue_row(f"{folder.name}: naive queue", naive_queue(found, spoiled.annotations), spoiled))
        none = ["", "", "", "", ""]
        ap, (low, high) = best_objectlab(found, spoiled.annotations, spoiled.is_spoiled)
        rows.append([f"{folder.name}: ObjectLab, thresholds {low:g} {high:g}", *none, f"{ap:.3f}"])
        result_rows = read_results(results).rows
        ap, name = best_hotcoco(spoiled.annotations.path, result_rows, spoiled.annotations, spoiled.is_spoiled)
        rows.append([f"{folder.name}: hotcoco, {name}", *none, f"{ap:.3f}"])
        chance = float(spoiled.is_spoiled.mean())
        rows.append([f"{folder.name}: images at random", *none, f"{chance:.3f}"])
    head = ["ranking", "planted in first N", "found in first 3N", *KINDS, "AP by images"]
    return aligned([head, *rows])


def decide(folder: Path, output_path: Path) -> int:
    """Writes a corrected copy of a spoiled data folder, and returns the number of corrected mistakes.

    These are the planted mistakes among the first N suspects in the queue, where N is the number of planted mistakes.
    """
    spoiled = read_spoiled(folder)
    entries = entries_of(read_json(folder / LABEL_CHECK / SUSPECTS)["suspects"], spoiled)
    found = [number for number in hits_of(entries[: len(spoiled.mistakes)], spoiled) if number is not None]
    content = read_json(find_annotation_file(folder, "train"))
    right = {spoiled.mistakes[number]["annotation"]["id"]: spoiled.mistakes[number]["annotation"] for number in found}
    rest = [each for each in content["annotations"] if each["id"] not in right]
    content["annotations"] = sorted([*rest, *right.values()], key=lambda each: each["id"])
    write_folder(folder, output_path, content)
    return len(found)


def write_folder(coco_path: Path, folder: Path, content: dict[str, Any]) -> None:
    """Writes a data folder: `content` as the train set, a copy of `coco_path`'s val set, and links to its images."""
    (folder / "images").mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "val.json").write_bytes(find_annotation_file(coco_path, "val").read_bytes())
    for name in ("train", "val"):
        (folder / "images" / name).symlink_to(find_image_folder(coco_path, name).resolve())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("plant", help="write a data folder with mistakes in its train set")
    step.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    step.add_argument("--draw", type=whole_number(0), required=True, help="the seed")
    step.add_argument("--num", type=whole_number(1), default=NUM_PLANTED, help="mistakes of each kind")
    step.add_argument("--output_path", type=Path, required=True, help="the spoiled data folder; must not exist")
    step = steps.add_parser("measure", help=f"print the table of spoiled folders, each with {LABEL_CHECK}/ in it")
    step.add_argument("folders", type=Path, nargs="+")
    step = steps.add_parser("decide", help="write a set with the planted mistakes among the first N corrected")
    step.add_argument("folder", type=Path)
    step.add_argument("--output_path", type=Path, required=True, help="the corrected data folder; must not exist")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.step == "plant":
        write_spoiled(args.coco_path, args.output_path, args.num, args.draw)
    elif args.step == "measure":
        say(*measure(args.folders))
    else:
        say(f"{decide(args.folder, args.output_path)} mistakes corrected: {args.output_path}")
    return 0


if __name__ == "__main__":
    run(main)

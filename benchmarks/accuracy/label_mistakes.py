"""Plants mistakes in a set's labels, and measures how well check_labels finds them.

python -m benchmarks.accuracy.label_mistakes plant --coco_path $VOC5 --draw 1 --output_path FOLDER/draw1
"""

import argparse
import copy
import json
import random
from pathlib import Path
from typing import Any

from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.runtime.console import run, say
from retinanet.runtime.json_files import read_json
from retinanet.settings.options import whole_number

NUM_PLANTED = 54  # of each kind
MOVE = 0.3  # of the box's sides, in both directions
CLASS_CHANGE, DELETION, MOVED = KINDS = ("class change", "deletion", "moved box")
PLANTED = "planted.json"


def plant(content: dict[str, Any], num: int, draw: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the COCO `content` with `num` mistakes of each kind, each in another object, and the mistakes.

    A mistake names its kind and holds the annotation as it was.
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
    """Returns `box` (left, top, width, height) moved by MOVE of its sides, clipped to the image's (width, height)."""
    (left, top, width, height), (columns, rows) = box, size
    left += drawn.choice((-MOVE, MOVE)) * width
    top += drawn.choice((-MOVE, MOVE)) * height
    right, bottom = min(left + width, columns), min(top + height, rows)
    left, top = max(left, 0.0), max(top, 0.0)
    return [left, top, right - left, bottom - top]


def write_spoiled(coco_path: Path, folder: Path, num: int, draw: int) -> None:
    """Writes a data folder with the spoiled train set, the clean val set, links to the images, and PLANTED."""
    content, mistakes = plant(read_json(find_annotation_file(coco_path, "train")), num, draw)
    (folder / "images").mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "val.json").write_bytes(find_annotation_file(coco_path, "val").read_bytes())
    for name in ("train", "val"):
        (folder / "images" / name).symlink_to(find_image_folder(coco_path, name).resolve())
    (folder / PLANTED).write_text(json.dumps({"draw": draw, "mistakes": mistakes}, indent=1))
    say(f"{len(mistakes)} mistakes planted in {len(content['annotations'])} objects: {folder}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("plant", help="write a data folder with mistakes in its train set")
    step.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    step.add_argument("--draw", type=whole_number(0), required=True, help="the seed")
    step.add_argument("--num", type=whole_number(1), default=NUM_PLANTED, help="mistakes of each kind")
    step.add_argument("--output_path", type=Path, required=True, help="the spoiled data folder; must not exist")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.step == "plant":
        write_spoiled(args.coco_path, args.output_path, args.num, args.draw)
    return 0


if __name__ == "__main__":
    run(main)

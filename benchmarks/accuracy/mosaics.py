"""Make a set of small objects from a set of photographs: each image has four of them at half their size.

    python -m benchmarks.accuracy.mosaics --coco_path $VOC5 --output_path MOSAICS --classes bird bus car

Photographs without one of the classes are left out; of the others each comes in four mosaics for training, in two
for validation.
"""

import argparse
import json
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from PIL import Image

from retinanet.coco.json_values import read_json
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import UserError

SIZE = 500, 376  # of a mosaic; a quarter is a photograph's place
REPEATS = {"train": 4, "val": 2}  # of each photograph
SEED = 5


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    parser.add_argument("--output_path", type=Path, required=True, help="the data folder to make")
    parser.add_argument("--classes", nargs="+", required=True, help="the names of those to keep")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output_path.exists():
        raise UserError(f"{args.output_path} exists already. Give another --output_path")
    draw = random.Random(SEED)
    for name, repeats in REPEATS.items():
        path = args.coco_path / f"{name}.json"
        content = read_json(path)
        if unknown := set(args.classes) - {one["name"] for one in content["categories"]}:
            raise UserError(f"{path} has no class {', '.join(sorted(unknown))}. Look at --classes")
        made = mosaics(content, args.classes, repeats, draw, args.coco_path / "images" / name)
        folder = args.output_path / "images" / name
        folder.mkdir(parents=True)
        for row, picture in zip(made["images"], made.pop("pictures"), strict=True):
            picture.save(folder / row["file_name"], quality=92)
        (args.output_path / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
        say(f"{name}: {len(made['images'])} mosaics with {len(made['annotations'])} objects in {args.output_path}")
    return 0


def mosaics(
    content: dict[str, Any], classes: Collection[str], repeats: int, draw: random.Random, folder: Path
) -> dict[str, Any]:
    """The content of a COCO file, of mosaics of the photographs in `folder`, with their `pictures`."""
    kept = {one["id"] for one in content["categories"] if one["name"] in classes}
    objects: dict[int, list[dict[str, Any]]] = {}
    for row in content["annotations"]:
        if row["category_id"] in kept:
            objects.setdefault(row["image_id"], []).append(row)
    photographs = [row for row in content["images"] if row["id"] in objects]
    drawn = []
    for _ in range(repeats):
        shuffled = photographs[:]
        draw.shuffle(shuffled)
        drawn += shuffled
    made: dict[str, Any] = {"images": [], "annotations": [], "pictures": []}
    for number in range(1, len(drawn) // 4 + 1):
        picture = Image.new("RGB", SIZE)
        for place, photograph in enumerate(drawn[4 * number - 4 : 4 * number]):
            corner = place % 2 * SIZE[0] // 2, place // 2 * SIZE[1] // 2
            scale = _paste(picture, folder / photograph["file_name"], corner)
            for row in objects[photograph["id"]]:
                left, top, width, height = (value * scale for value in row["bbox"])
                made["annotations"].append(
                    {
                        "id": len(made["annotations"]) + 1,
                        "image_id": number,
                        "category_id": row["category_id"],
                        "bbox": [left + corner[0], top + corner[1], width, height],
                        "area": width * height,
                        "iscrowd": row["iscrowd"],
                    }
                )
        name = f"{number:06d}.jpg"
        made["images"].append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        made["pictures"].append(picture)
    return {**made, "categories": [one for one in content["categories"] if one["id"] in kept]}


def _paste(picture: Image.Image, path: Path, corner: tuple[int, int]) -> float:
    """Put the photograph at `path` into its quarter; returns its scale."""
    with Image.open(path) as photograph:
        width, height = photograph.size
        scale = min(SIZE[0] / 2 / width, SIZE[1] / 2 / height)
        small = photograph.convert("RGB").resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    picture.paste(small, corner)
    return scale


if __name__ == "__main__":
    run(main)

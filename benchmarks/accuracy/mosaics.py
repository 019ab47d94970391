"""Makes a dataset of small objects from a dataset of photographs: each image is a mosaic of four photographs.

    python -m benchmarks.accuracy.mosaics --coco_path $VOC5 --output_path MOSAICS --classes bird bus car

Photographs without an object of the given classes are left out. Each of the others is in four mosaics for training, or
in two for validation.
"""

import argparse
import json
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet.coco.annotations import Annotations, read_annotations
from retinanet.convert.place import place_whole
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import UserError

SIZE = 500, 376  # of a mosaic; a photograph is scaled to fit a quarter
REPEATS = {"train": 4, "val": 2}  # mosaics per photograph
SEED = 5


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    parser.add_argument("--output_path", type=Path, required=True, help="the data folder to make")
    parser.add_argument("--classes", nargs="+", required=True, help="the names of the classes to keep")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    sets = {name: read_annotations(args.coco_path / f"{name}.json") for name in REPEATS}
    for annotations in sets.values():
        if unknown := set(args.classes) - set(annotations.class_names):
            raise UserError(f"{annotations.path} has no class {', '.join(sorted(unknown))}. Look at --classes")

    def write(folder: Path) -> None:
        draw = random.Random(SEED)
        for name, annotations in sets.items():
            _write_set(folder, name, annotations, args.classes, draw)

    place_whole(args.output_path, [*(f"images/{name}" for name in sets), *(f"{name}.json" for name in sets)], write)
    say(f"Mosaics: {args.output_path}")
    return 0


def _write_set(
    folder: Path, name: str, annotations: Annotations, classes: Collection[str], draw: random.Random
) -> None:
    """Writes {name}.json and images/{name}/ with the mosaics of one set."""
    place = folder / "images" / name
    place.mkdir(parents=True)
    is_kept = np.isin(annotations.labels, [annotations.class_names.index(one) for one in classes])
    rows_of = [
        np.arange(start, end)[is_kept[start:end]]
        for start, end in zip(annotations.first[:-1], annotations.first[1:], strict=True)
    ]
    drawn: list[int] = []
    for _ in range(REPEATS[name]):
        photographs = [index for index, rows in enumerate(rows_of) if len(rows)]
        draw.shuffle(photographs)
        drawn += photographs
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(1, len(drawn) // 4 + 1):
        mosaic = Image.new("RGB", SIZE)
        for quarter, index in enumerate(drawn[4 * number - 4 : 4 * number]):
            corner = quarter % 2 * SIZE[0] // 2, quarter // 2 * SIZE[1] // 2
            scale = _paste(mosaic, annotations.path.parent / "images" / name / annotations.file_name(index), corner)
            for row in rows_of[index]:
                left, top, width, height = (annotations.boxes[row] * scale).tolist()
                entry = {"id": len(objects) + 1, "image_id": number, "iscrowd": int(annotations.crowds[row])}
                entry["category_id"] = annotations.category_ids[annotations.labels[row]]
                box = [left + corner[0], top + corner[1], width, height]
                objects.append({**entry, "bbox": box, "area": width * height})
        images.append({"id": number, "file_name": f"{number:06d}.jpg", "width": SIZE[0], "height": SIZE[1]})
        mosaic.save(place / f"{number:06d}.jpg", quality=92)
    names = zip(annotations.category_ids, annotations.class_names, strict=True)
    categories = [{"id": category_id, "name": one} for category_id, one in names if one in classes]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _paste(mosaic: Image.Image, path: Path, corner: tuple[int, int]) -> float:
    """Pastes the photograph at `path`, scaled to fit, into its quarter of the mosaic; returns the scale."""
    with Image.open(path) as photograph:
        width, height = photograph.size
        scale = min(SIZE[0] / 2 / width, SIZE[1] / 2 / height)
        small = photograph.convert("RGB").resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    mosaic.paste(small, corner)
    return scale


if __name__ == "__main__":
    run(main)

"""Counts how many altered copies of training images are recognised, and how many val images are mistaken for copies.

python -m benchmarks.checks.lookalikes --coco_path $VOC5
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.similar import joined_looks, look_of, looks_of, most_similar
from retinanet.reports.tables import aligned
from retinanet.runtime.console import run, say
from retinanet.settings.options import whole_number
from retinanet.settings.shared import MAX_PIXELS, MAX_SIDE, MIN_SIDE

COPIES = 10  # of each kind
THREADS = 2


def saved_again(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((round(0.7 * picture.width), round(0.7 * picture.height)), Image.Resampling.LANCZOS)


def cropped(picture: Image.Image) -> Image.Image:
    """Returns the picture, cropped by 3% on each side."""
    across, down = 0.03 * picture.width, 0.03 * picture.height
    return picture.crop((round(across), round(down), round(picture.width - across), round(picture.height - down)))


def cropped_at_a_corner(picture: Image.Image) -> Image.Image:
    return picture.crop((round(0.06 * picture.width), round(0.06 * picture.height), picture.width, picture.height))


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.3)


def all_at_once(picture: Image.Image) -> Image.Image:
    return saved_again(ImageOps.mirror(brighter(cropped(smaller(picture)))))


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 40": saved_again,
    "0.7 of the size": smaller,
    "3% cropped at each side": cropped,
    "1.3 times as bright": brighter,
    "mirrored": ImageOps.mirror,
}
HARDER: dict[str, Callable[[Image.Image], Image.Image]] = {
    "all five at once": all_at_once,
    "6% cropped at two sides": cropped_at_a_corner,
}


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    train, val = (set_called(args.coco_path, name) for name in ("train", "val"))
    of_train, of_val = (joined_looks(list(looks_of(each.original, len(each), THREADS))) for each in (train, val))
    drawn = np.random.default_rng(args.seed).permutation(len(train))[: len(KINDS) * COPIES]
    sources = {kind: drawn[number * COPIES : (number + 1) * COPIES] for number, kind in enumerate(KINDS)}
    sources |= dict.fromkeys(HARDER, drawn)
    rows = [["Copies", "found"]]
    for kind, images in sources.items():
        change = (KINDS | HARDER)[kind]
        copies = [look_of(np.asarray(change(Image.fromarray(train.original(image))))) for image in images.tolist()]
        is_right = most_similar(joined_looks(copies), of_train)[0] == images
        rows.append([kind, f"{is_right.sum()} of {len(images)}"])
    num_false = int((most_similar(of_val, of_train)[0] >= 0).sum())
    say(
        *aligned(rows),
        f"Of the {len(val)} val images, {num_false} are taken for one of the {len(train)} training images",
    )
    return 0


def set_called(coco_path: Path, name: str) -> CocoDataset:
    return load_set(coco_path, name, min_side=MIN_SIDE, max_side=MAX_SIDE, max_pixels=MAX_PIXELS)[1]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="decides which images are copied")
    return parser


if __name__ == "__main__":
    run(main)

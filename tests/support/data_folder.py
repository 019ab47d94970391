"""Writes a small data folder: images and their annotation files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("red", "green")


def write_set(folder: Path, name: str, num_images: int, *, first_id: int = 1, seed: int = 0) -> dict:
    """Writes a set of noisy images, each except the last with a red or green square; returns the annotations."""
    draw = np.random.default_rng([seed, len(name)])
    images, annotations = [], []
    (folder / "images" / name).mkdir(parents=True)
    for number in range(num_images):
        width, height = [(64, 64), (96, 64), (64, 96)][number % 3]
        pixels = draw.integers(90, 160, (height, width, 3), dtype=np.uint8)
        image_id = first_id + number
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": width, "height": height})
        if number < num_images - 1:
            label, side = int(draw.integers(2)), int(draw.integers(24, 48))
            left, top = int(draw.integers(width - side)), int(draw.integers(height - side))
            pixels[top : top + side, left : left + side] = [(230, 20, 20), (20, 230, 20)][label]
            annotations.append(
                {
                    "id": first_id + number,
                    "image_id": image_id,
                    "category_id": first_id + label,
                    "bbox": [left, top, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(folder / "images" / name / f"{image_id}.png")
    categories = [{"id": first_id + label, "name": text} for label, text in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return content


def large_set(folder: Path, *names: str, num_images: int = 4) -> Path:
    """Writes sets of noisy images of about 200 x 160, each with five small squares; returns the folder."""
    for name in names:
        draw = np.random.default_rng([7, len(name)])
        images, annotations = [], []
        (folder / "images" / name).mkdir(parents=True)
        for number in range(1, num_images + 1):
            width, height = 200 - 10 * (number % 3), 160
            pixels = draw.integers(90, 160, (height, width, 3), dtype=np.uint8)
            for _ in range(5):
                label, side = int(draw.integers(2)), int(draw.integers(10, 24))
                left, top = int(draw.integers(width - side)), int(draw.integers(height - side))
                pixels[top : top + side, left : left + side] = [(230, 20, 20), (20, 230, 20)][label]
                entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + label, "iscrowd": 0}
                annotations.append({**entry, "bbox": [left, top, side, side], "area": side * side})
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        categories = [{"id": 1 + label, "name": text} for label, text in enumerate(NAMES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def change_json(path: Path, change) -> None:
    """Rewrites a JSON file after `change`, a function that modifies the contents in place or returns new contents."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def as_corners(content: dict) -> None:
    """Rewrites the boxes in `content` as (x1, y1, x2, y2)."""
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left, top, left + width, top + height]


def in_fractions(content: dict) -> None:
    """Rewrites the boxes in `content` as fractions of 100 pixels, and removes the areas."""
    for annotation in content["annotations"]:
        annotation["bbox"] = [number / 100 for number in annotation["bbox"]]
        del annotation["area"]

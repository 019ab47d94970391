"""Writes pictures of plain objects, with boxes in a given reading; FILE_BOXES defines the readings."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from retinanet.coco.annotations import Annotations

HEIGHT, WIDTH = 96, 144
# The numbers in a file of each reading for the box x, y, w, h in a picture of W x H.
FILE_BOXES = {
    "as_given": lambda x, y, w, h, W, H: (x, y, w, h),
    "centres": lambda x, y, w, h, W, H: (x + w / 2, y + h / 2, w, h),
    "corner_less_half": lambda x, y, w, h, W, H: (x - w / 2, y - h / 2, w, h),
    "corners": lambda x, y, w, h, W, H: (x, y, x + w, y + h),
    "mirrored": lambda x, y, w, h, W, H: (W - x - w, y, w, h),
    "upside_down": lambda x, y, w, h, W, H: (x, H - y - h, w, h),
    "half_turn": lambda x, y, w, h, W, H: (W - x - w, H - y - h, w, h),
    # A picture turned left has the size H x W; its left side is the upright picture's top, its bottom the left side.
    "turned_left": lambda x, y, w, h, W, H: (y / H * W, (W - x - w) / W * H, h / H * W, w / W * H),
    "turned_left_pixels": lambda x, y, w, h, W, H: (y, W - x - w, h, w),
    "turned_right": lambda x, y, w, h, W, H: ((H - y - h) / H * W, x / W * H, h / H * W, w / W * H),
    "turned_right_pixels": lambda x, y, w, h, W, H: (H - y - h, x, h, w),
    "swapped": lambda x, y, w, h, W, H: (y, x, h, w),
    "swapped_fractions": lambda x, y, w, h, W, H: (y / H * W, x / W * H, h / H * W, w / W * H),
    "scaled_up": lambda x, y, w, h, W, H: (1.1 * x, 1.1 * y, 1.1 * w, 1.1 * h),
    "scaled_down": lambda x, y, w, h, W, H: (0.8 * x, 0.8 * y, 0.8 * w, 0.8 * h),
    "shifted_right": lambda x, y, w, h, W, H: (x + W / 10, y, w, h),
    "shifted_left": lambda x, y, w, h, W, H: (x - W / 10, y, w, h),
    "shifted_down": lambda x, y, w, h, W, H: (x, y + H / 10, w, h),
    "shifted_up": lambda x, y, w, h, W, H: (x, y - H / 10, w, h),
}


def scene(seed: int) -> tuple[np.ndarray, list[list[int]]]:
    """Returns a picture, uint8 [HEIGHT, WIDTH, 3], of three objects on an uneven background, and their boxes."""
    draw = np.random.default_rng(seed)
    rough = Image.fromarray(draw.integers(60, 200, (6, 9), dtype=np.uint8)).resize((WIDTH, HEIGHT))
    grey = np.asarray(rough).astype(int) + draw.integers(-12, 13, (HEIGHT, WIDTH))
    boxes = []
    for column in range(3):
        width, height = (int(side) for side in draw.integers(16, 40, 2))
        left, top = column * 48 + int(draw.integers(2, 46 - width)), int(draw.integers(2, HEIGHT - 2 - height))
        inside = grey[top : top + height, left : left + width]
        inside += -70 if inside.mean() > 130 else 70
        boxes.append([left, top, width, height])
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), boxes


def planted(reading: str, boxes: list[list[int]]) -> list[list[float]]:
    return [list(FILE_BOXES[reading](*box, WIDTH, HEIGHT)) for box in boxes]


def scenes(number: int, reading: str = "as_given", seed: int = 0) -> tuple[Annotations, list[np.ndarray]]:
    """Returns the annotations and the pictures of a set in memory."""
    drawn = [scene(1000 * seed + each) for each in range(number)]
    boxes = np.array([box for _, each in drawn for box in planted(reading, each)], float)
    annotations = Annotations(
        path=Path("train.json"),
        class_names=["object"],
        category_ids=[1],
        image_ids=np.arange(1, number + 1),
        file_names=np.array([f"{each:03d}.png".encode() for each in range(number)]),
        sizes=np.tile([HEIGHT, WIDTH], (number, 1)),
        first=3 * np.arange(number + 1),
        boxes=boxes,
        labels=np.zeros(len(boxes), np.int64),
        crowds=np.zeros(len(boxes), bool),
        areas=boxes[:, 2] * boxes[:, 3],
    )
    return annotations, [pixels for pixels, _ in drawn]


def write_scenes(
    folder: Path, name: str, readings: list[str], *, names: list[str] | None = None, seed: int = 0, exif: int = 1
) -> dict:
    """Writes a set with a picture for each of the `readings`, in which its boxes are written; returns the annotations.

    The pictures whose boxes aren't as given have the EXIF orientation `exif`, but their pixels are as scene draws them.
    """
    images, annotations = [], []
    for number, reading in enumerate(readings):
        file_name = names[number] if names else f"{number + 1:03d}.png"
        pixels, boxes = scene(1000 * seed + number)
        path = folder / "images" / name / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        tag = Image.Exif()
        tag[274] = 1 if reading == "as_given" else exif
        Image.fromarray(pixels).save(path, exif=tag)
        images.append({"id": number + 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT})
        for box in planted(reading, boxes):
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "bbox": box, "area": box[2] * box[3], "note": f"row {len(annotations)}"})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return content

"""Makes up photographs, writes sets of them with an EXIF orientation, and reads the colours inside their boxes."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RED, GREY = (230, 30, 30), (110, 110, 110)
BOX = [12, 8, 20, 24]  # of the red object in the upright photograph
TURNS = {  # how stored pixels are turned upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
BACK = {**{number: number for number in TURNS}, 6: 8, 8: 6}


def write_photo(path: Path, orientation: int, height: int = 48, width: int = 64) -> tuple[list[int], list[int]]:
    """Writes a photograph of a red object on grey; returns the stored size (height, width) and the object's box there.

    Upright, its size is `height` x `width` and its box is BOX.
    """
    pixels = np.full((height, width, 3), GREY, np.uint8)
    left, top, wide, high = BOX
    pixels[top : top + high, left : left + wide] = RED
    stored = np.ascontiguousarray(TURNS[BACK[orientation]](pixels))
    exif = Image.Exif()
    exif[274] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(path, exif=exif)
    rows, columns = np.nonzero(stored[..., 0] == RED[0])
    box = [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]
    return list(stored.shape[:2]), [int(number) for number in box]


def write_photos(
    folder: Path, name: str, orientations: list[int], *, of_stored: bool = False, height: int = 48, width: int = 64
) -> Path:
    """Writes a set of photographs, annotated upright or, with `of_stored`, as their pixels are stored."""
    images, annotations = [], []
    for number, orientation in enumerate(orientations, 1):
        size, box = write_photo(folder / "images" / name / f"{number}.png", orientation, height, width)
        size, box = (size, box) if of_stored else ([height, width], BOX)
        images.append({"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def colour_inside(pixels: np.ndarray, box: list[float]) -> tuple[int, ...]:
    """Returns the mean colour inside a box (left, top, width, height)."""
    left, top, width, height = map(round, box)
    return tuple(np.rint(pixels[top : top + height, left : left + width].mean((0, 1))).astype(int).tolist())


def made_up_photo(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """Returns a picture of a dozen shapes on a blurred background, as varied as photographs are."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = draw.uniform(0, 0.9, 2) * (width, height)
        right, bottom = (left, top) + draw.uniform(0.05, 0.4, 2) * (width, height)
        shape = pen.ellipse if draw.random() < 0.5 else pen.rectangle
        shape((left, top, right, bottom), fill=tuple(draw.integers(0, 255, 3).tolist()))
    return picture

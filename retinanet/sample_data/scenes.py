"""Creates the scenes of the sample dataset: cut-outs from photographs, pasted onto photographed backgrounds."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from retinanet.runtime.errors import UserError, file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.streams import hides_bars
from retinanet.sample_data.cutouts import backgrounds, cutouts

IMAGE_SIZES = ((240, 320), (240, 320), (320, 240), (256, 256))  # (height, width)
RESAMPLING = Image.Resampling.LANCZOS
SMALLEST, LARGEST = 0.16, 0.8  # an object's longer side, as a fraction of the image's shorter side
CROWDED, EMPTY = 0.15, 0.05  # fractions of images with many objects, and without objects
MOST_ENLARGED = 1.5  # a larger factor would reveal the low resolution of the photograph of the coins
LEAST_VISIBLE = 0.5  # fraction of each object; an object that would hide more of another is not pasted
TINTS = ((1.0, 0.78, 0.66), (0.75, 0.95, 0.6), (1.0, 0.93, 0.8), (0.85, 0.92, 1.0), (1.0, 1.0, 1.0))


def write_sample_data(folder: Path, seed: int, counts: dict[str, int]) -> None:
    """Writes {set}.json and images/{set}/ for each set. If any of them exists, raises UserError and writes nothing."""
    for name in counts:
        for path in (folder / f"{name}.json", folder / "images" / name):
            if path.exists():
                raise UserError(f"{path}: exists already and was not changed. Choose another folder, or remove it.")
    objects, textures = cutouts(), backgrounds()
    categories = [{"id": number, "name": name} for number, name in enumerate(objects, start=1)]
    with file_error_explained(folder, "can't be written to", "Choose another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, count) in enumerate(counts.items()):
            with tempfile.TemporaryDirectory(dir=folder) as beside:  # an interrupted run doesn't leave half a set
                draw = np.random.default_rng([seed, number])
                content = _write_images(Path(beside), name, count, draw, list(objects.values()), textures)
                (folder / "images").mkdir(exist_ok=True)
                (Path(beside) / "images").rename(folder / "images" / name)
                with written_whole(folder / f"{name}.json") as file:
                    json.dump({**content, "categories": categories}, file)


def _write_images(
    folder: Path,
    name: str,
    count: int,
    draw: np.random.Generator,
    objects: list[list[Image.Image]],
    textures: list[Image.Image],
) -> dict[str, list[dict[str, Any]]]:
    (folder / "images").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in tqdm(range(1, count + 1), name, leave=False, disable=hides_bars()):
        scene, boxes = make_scene(draw, objects, textures)
        file_name = f"{image_id:06d}.jpg"
        scene.save(folder / "images" / file_name, quality=92)
        images.append({"id": image_id, "file_name": file_name, "width": scene.width, "height": scene.height})
        for category_id, box in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations}


def make_scene(
    draw: np.random.Generator, objects: list[list[Image.Image]], textures: list[Image.Image]
) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """Returns a new picture and each object's (category id, box); the box encloses the object's visible pixels."""
    height, width = IMAGE_SIZES[draw.integers(len(IMAGE_SIZES))]
    scene = _ground(draw, textures, height, width)
    owners = np.zeros((height, width), np.int64)  # the object that each pixel shows; 0 is the background
    kind = draw.random()
    num_objects = (
        0 if kind < EMPTY else int(draw.integers(6, 12)) if kind < EMPTY + CROWDED else int(draw.integers(1, 5))
    )
    areas, labels = [0], [-1]
    for _ in range(num_objects):
        label = int(draw.integers(len(objects)))
        largest = LARGEST if num_objects < 6 else LARGEST / 2
        picture = objects[label][draw.integers(len(objects[label]))]
        side = min(height, width) * SMALLEST * (largest / SMALLEST) ** draw.random()
        picture = _light(draw, _turn(draw, picture, min(side, MOST_ENLARGED * max(picture.size))))
        left = int(draw.integers(-picture.width // 8, width - picture.width * 7 // 8))
        top = int(draw.integers(-picture.height // 8, height - picture.height * 7 // 8))
        mask = Image.new("L", (width, height))
        mask.paste(picture.getchannel("A"), (left, top))
        solid = np.asarray(mask) > 127
        covered = np.where(solid, len(areas), owners)
        visible = np.bincount(covered.ravel(), minlength=len(areas) + 1)
        whole = np.array([*areas[1:], (np.asarray(picture.getchannel("A")) > 127).sum()])
        if (visible[1:] < LEAST_VISIBLE * whole).any():
            continue
        _shade(scene, mask)
        scene.paste(picture, (left, top), picture)
        owners = covered
        areas.append(int(solid.sum()))
        labels.append(label)
    boxes = []
    for number in range(1, len(areas)):
        rows, columns = np.nonzero(owners == number)
        box = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
        boxes.append((labels[number] + 1, [int(side) for side in box]))
    return _camera(draw, scene), boxes


def _ground(draw: np.random.Generator, textures: list[Image.Image], height: int, width: int) -> Image.Image:
    texture = textures[draw.integers(len(textures))]
    zoom = draw.uniform(0.65, 1.4)
    crop_width, crop_height = int(width / zoom), int(height / zoom)
    left = int(draw.integers(texture.width - crop_width + 1))
    top = int(draw.integers(texture.height - crop_height + 1))
    grey = texture.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + crop_width, top + crop_height))
    tint = np.array(TINTS[draw.integers(len(TINTS))]) * draw.uniform(0.7, 1.2)
    return Image.fromarray((np.asarray(grey)[..., None] * tint).clip(0, 255).astype(np.uint8))


def _turn(draw: np.random.Generator, picture: Image.Image, side: float) -> Image.Image:
    """Mirrors `picture` at random, rotates it slightly, crops it tightly and scales its longer side to `side`."""
    if draw.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.convert("RGBa")
    shrink = 2 * side / max(picture.size)  # rotating fewer pixels takes less time
    if shrink < 1:
        picture = picture.resize((round(picture.width * shrink), round(picture.height * shrink)), RESAMPLING)
    picture = picture.rotate(draw.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    picture = picture.crop(picture.getbbox())
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, RESAMPLING).convert("RGBA")


def _light(draw: np.random.Generator, picture: Image.Image) -> Image.Image:
    pixels = np.array(picture).astype(float)
    contrast, colour = draw.uniform(0.75, 1.25), draw.uniform(0.85, 1.1, 3)
    pixels[..., :3] = (pixels[..., :3] - 128) * contrast * colour + 128 * draw.uniform(0.75, 1.2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shade(scene: Image.Image, mask: Image.Image) -> None:
    """Draws a soft shadow around the object that is about to be pasted, so that it seems to lie on the ground."""
    shadow = Image.new("L", scene.size)
    shadow.paste(mask, (3, 4))
    shadow = shadow.filter(ImageFilter.GaussianBlur(5)).point(lambda value: value * 0.55)
    scene.paste((12, 10, 10), (0, 0), shadow)


def _camera(draw: np.random.Generator, scene: Image.Image) -> Image.Image:
    """Adds uneven light, a slight blur and sensor noise."""
    scene = scene.filter(ImageFilter.GaussianBlur(draw.uniform(0, 0.8)))
    pixels = np.asarray(scene).astype(float)
    slope = draw.uniform(-0.35, 0.35, 2)
    rows, columns = np.linspace(-0.5, 0.5, scene.height)[:, None], np.linspace(-0.5, 0.5, scene.width)[None, :]
    pixels *= (1 + slope[0] * rows + slope[1] * columns)[..., None]
    return Image.fromarray((pixels + draw.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))

"""Writes data folders with mistakes that lead to an AP of 0, and correct ones that are hard to learn."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.runtime.json_files import read_json

Content = dict[str, Any]
Change = Callable[[Content, np.random.Generator], None]
Pictures = Callable[[int], Image.Image]  # by image id
SETS = ("train", "val")
CARS = "car"
TILES = 4  # photographs along each side of a mosaic
TILE_SIZE = (160, 120)
ENLARGED = 6  # the factor by which the sides grow
SHAPES, COLOURS = 10, 8
SCENES = {"train": 90, "val": 40}


def shift_classes(content: Content, _draw: np.random.Generator) -> None:
    """Gives each object the category id of the next class."""
    ids = sorted(category["id"] for category in content["categories"])
    _rename(content, dict(zip(ids, [*ids[1:], ids[0]], strict=True)))


def permute_classes(content: Content, draw: np.random.Generator) -> None:
    """Gives each class the category id of another class, at random."""
    ids = np.array(sorted(category["id"] for category in content["categories"]))
    others = draw.permutation(ids)
    while (others == ids).any():
        others = draw.permutation(ids)
    _rename(content, dict(zip(ids.tolist(), others.tolist(), strict=True)))


def _rename(content: Content, new: dict[int, int]) -> None:
    for annotation in content["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]


def write_centres(content: Content, _draw: np.random.Generator) -> None:
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left + width / 2, top + height / 2, width, height]


def deal_objects(content: Content, draw: np.random.Generator) -> None:
    """Moves all objects of each image to a randomly drawn image, and scales their boxes to that image's size."""
    images = {image["id"]: image for image in content["images"]}
    others = dict(zip(images, draw.permutation(list(images)).tolist(), strict=True))
    for annotation in content["annotations"]:
        before, after = images[annotation["image_id"]], images[others[annotation["image_id"]]]
        scales = after["width"] / before["width"], after["height"] / before["height"]
        annotation["bbox"] = [number * scale for number, scale in zip(annotation["bbox"], scales * 2, strict=True)]
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotation["image_id"] = after["id"]


def make_noise(sizes: dict[int, tuple[int, int]], draw: np.random.Generator, image: int) -> Image.Image:
    width, height = sizes[image]
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


# How each kind changes val, and how it changes train; NOISE replaces the pictures of both.
NOISE = "noise"
BROKEN: dict[str, tuple[Change | None, Change | None]] = {
    "classes of val shifted": (shift_classes, None),
    "classes of val permuted": (permute_classes, None),
    "val as centres": (write_centres, None),
    "objects dealt to other images": (None, deal_objects),
    NOISE: (None, None),
}


def write_broken(source: Path, folder: Path, kind: str, seed: int) -> None:
    """Writes a data folder with mistakes of `kind`; the pictures are links to those in `source`, or noise."""
    draw = np.random.default_rng(seed)
    changes = dict(zip(("val", "train"), BROKEN[kind], strict=True))
    for name in SETS:
        content = read_json(find_annotation_file(source, name))
        if change := changes[name]:
            change(content, draw)
        if kind == NOISE:
            sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
            _write(folder, name, content, partial(make_noise, sizes, draw))
        else:
            _write(folder, name, content, find_image_folder(source, name))


def _write(folder: Path, name: str, content: Content, images: Path | Pictures) -> None:
    """Writes a set. `images` is a folder to link to, or a function that returns the picture for an image id."""
    place = folder / "images" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(images, Path):
        place.symlink_to(images.resolve())
    else:
        place.mkdir()
        for image in content["images"]:
            image["file_name"] = f"{Path(image['file_name']).stem}.jpg"
            images(image["id"]).save(place / image["file_name"], quality=95)
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def one_class(source: Path, name: str, _draw: np.random.Generator) -> tuple[Content, Pictures]:
    """Returns the photographs that contain cars, with only the cars annotated."""
    content = read_json(find_annotation_file(source, name))
    (category,) = (each for each in content["categories"] if each["name"] == CARS)
    content["categories"] = [category]
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] == category["id"]]
    shown = {each["image_id"] for each in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in shown]
    return content, _pictures(source, name, content, lambda picture: picture)


def grey(source: Path, name: str, _draw: np.random.Generator) -> tuple[Content, Pictures]:
    content = read_json(find_annotation_file(source, name))
    return content, _pictures(source, name, content, lambda picture: picture.convert("L").convert("RGB"))


def huge(source: Path, name: str, _draw: np.random.Generator) -> tuple[Content, Pictures]:
    """Returns some of the photographs, enlarged."""
    content = read_json(find_annotation_file(source, name))
    content["images"] = content["images"][:: 8 if name == "train" else 4]
    shown = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in shown]
    for annotation in content["annotations"]:
        annotation["bbox"] = [ENLARGED * number for number in annotation["bbox"]]
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    pictures = _pictures(
        source, name, content, lambda picture: picture.resize((ENLARGED * picture.width, ENLARGED * picture.height))
    )
    for image in content["images"]:
        image["width"], image["height"] = ENLARGED * image["width"], ENLARGED * image["height"]
    return content, pictures


def _pictures(source: Path, name: str, content: Content, change: Callable[[Image.Image], Image.Image]) -> Pictures:
    """Returns a function that takes the id of an image in `content`, and returns its picture after the change."""
    names = {image["id"]: find_image_folder(source, name) / image["file_name"] for image in content["images"]}

    def changed(image: int) -> Image.Image:
        with Image.open(names[image]) as picture:
            return change(picture.convert("RGB"))

    return changed


def tiny(source: Path, name: str, draw: np.random.Generator) -> tuple[Content, Pictures]:
    """Returns mosaics of TILES x TILES photographs, so that the objects are small."""
    content = read_json(find_annotation_file(source, name))
    of_image: dict[int, list[Content]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    small = _pictures(source, name, content, lambda picture: picture.resize(TILE_SIZE))
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    width, height = TILE_SIZE
    images, annotations, wholes = list[Content](), list[Content](), list[Image.Image]()
    for number in range(3 * len(sizes) // TILES**2):
        whole = Image.new("RGB", (TILES * width, TILES * height))
        for tile, identity in enumerate(draw.choice(list(sizes), TILES**2, replace=False).tolist()):
            left, top = tile % TILES * width, tile // TILES * height
            whole.paste(small(identity), (left, top))
            scales = width / sizes[identity][0], height / sizes[identity][1]
            for annotation in of_image.get(identity, []):
                x, y, w, h = annotation["bbox"]
                box = [left + x * scales[0], top + y * scales[1], w * scales[0], h * scales[1]]
                changes = {"id": len(annotations) + 1, "image_id": number + 1, "bbox": box, "area": box[2] * box[3]}
                annotations.append({**copy.deepcopy(annotation), **changes, "segmentation": []})
        file_name = f"{number + 1}.png"
        images.append({"id": number + 1, "file_name": file_name, "width": whole.width, "height": whole.height})
        wholes.append(whole)
    return {**content, "images": images, "annotations": annotations}, lambda image: wholes[image - 1]


def many_classes(_source: Path, name: str, draw: np.random.Generator) -> tuple[Content, Pictures]:
    """Returns drawn scenes with 80 classes (10 shapes in 8 colours), each of which has 1 to 3 objects in a set."""
    categories = [{"id": number + 1, "name": f"class {number + 1}"} for number in range(SHAPES * COLOURS)]
    images, annotations, scenes = list[Content](), list[Content](), list[Image.Image]()
    left_over = [number for number in range(SHAPES * COLOURS) for _ in range(int(draw.integers(1, 4)))]
    draw.shuffle(left_over)
    for number in range(SCENES[name]):
        low = draw.integers(90, 160, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(low).resize((320, 240), Image.Resampling.BICUBIC)
        for label in left_over[number :: SCENES[name]]:
            side = int(draw.integers(50, 110))
            left, top = int(draw.integers(0, 320 - side)), int(draw.integers(0, 240 - side))
            _draw_object(ImageDraw.Draw(picture), label, left, top, side)
            box = [left, top, side, side]
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**entry, "bbox": box, "area": side * side})
        images.append({"id": number + 1, "file_name": f"{number + 1}.png", "width": 320, "height": 240})
        scenes.append(picture)
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, lambda image: scenes[image - 1]


def _draw_object(pencil: ImageDraw.ImageDraw, label: int, left: int, top: int, side: int) -> None:
    """Draws a star polygon whose colour and number of corners depend on the class."""
    angle = np.arange(2 * (label % SHAPES + 3)) * np.pi / (label % SHAPES + 3)
    radius = np.where(np.arange(len(angle)) % 2, 0.55, 1.0)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    x, y = ((each - each.min()) / np.ptp(each) * (side - 1) for each in (x, y))
    colour = tuple(255 if label // SHAPES >> bit & 1 else 30 for bit in range(3))
    pencil.polygon(list(zip(left + x, top + y, strict=True)), fill=colour, outline=(0, 0, 0))


HARD = {"one class": one_class, "80 classes": many_classes, "tiny objects": tiny, "huge images": huge, "grey": grey}


def write_hard(source: Path, folder: Path, kind: str, seed: int) -> None:
    """Writes a data folder that has no mistakes, but is hard to learn in minutes."""
    for number, name in enumerate(SETS):
        content, pictures = HARD[kind](source, name, np.random.default_rng([seed, number]))
        _write(folder, name, content, pictures)

"""Reads the JSON of two labelling tools: Label Studio, with a list of tasks, and labelme, with a file per image.

For the formats, see https://labelstud.io/guide/export.html (JSON and JSON-MIN),
https://labelstud.io/tags/rectanglelabels and https://github.com/wkentaro/labelme/blob/main/labelme/label_file.py
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from retinanet.coco.json_values import is_number, is_text
from retinanet.convert.coco_files import plain_names
from retinanet.convert.image_files import ImageFinder, require_first, sets_by_folder
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage
from retinanet.convert.shapes import Sides, around_points, clear_box, without_box
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.json_files import read_json

# Label Studio's shapes with a box. The class is under rectanglelabels, polygonlabels or ellipselabels or, if shapes and
# labels are chosen separately, in a second result with the same id and box, under labels.
SHAPES = ("rectangle", "polygon", "ellipse")
SIDES = ("points", "width", "radiusX")  # a value with any of these keys has a box
PERCENT = 100


class Shape(NamedTuple):
    where: str
    name: str  # of the class
    sides: Sides


class Labels(NamedTuple):
    """An image and its shapes, with class names instead of class numbers."""

    image: LabelledImage
    shapes: list[Shape]


def read_labelstudio(reading: Reading) -> Labelled:
    """Reads the tasks of Label Studio's JSON or JSON-MIN; shapes without a box are left out and counted.

    Tasks without an annotation are left out, too, unless --allow_unlabelled is set. Mistakes in individual tasks and
    shapes are added to `reading`; any other mistake raises a UserError that names it.
    """
    files = [reading.source] if reading.source.is_file() else reading.files(".json")
    tasks: list[tuple[str, Path, dict[str, Any]]] = []
    for file in files:
        content = read_json(file)
        if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
            reading.tree.read(file)
            tasks += [(f"{file}: task {task.get('id', number)}", file, task) for number, task in enumerate(content)]
    if not tasks:
        raise UserError(f"{reading.source}: has no JSON file with a list of tasks. Export JSON from Label Studio.")
    finder, left_out = ImageFinder(reading), Counter[str]()
    labels: dict[Path, Labels] = {}
    owners: dict[Path, str] = {}  # the tasks of the images
    several: set[str] = set()
    num_several_names = 0
    unlabelled: list[Path] = []
    for where, file, task in tasks:
        with reading.mistakes_collected():
            annotations = [each for each in _list(task.get("annotations")) if not each.get("was_cancelled")]
            image = _image(reading, task.get("data", task), file, where, finder)
            if "annotations" in task and not annotations and not reading.told.allow_unlabelled:
                unlabelled.append(image)
                continue
            is_repeated = "annotations" not in task and owners.get(image) == where  # JSON-MIN: a row per annotation
            if is_repeated or len(annotations) > 1:
                several.add(where)
            if is_repeated:
                continue
            require_first(owners, image, where)
            size = reading.size(image, where)
            if "annotations" in task:
                results = [result for each in annotations[:1] for result in _list(each.get("result"))]
            else:  # JSON-MIN: each value that is a list holds the regions of a tag
                results = [each for value in task.values() if isinstance(value, list) for each in _list(value)]
            shapes: list[Shape] = []
            named = {str(result.get("id")) for result in results if _names(result.get("value", result)) is not None}
            for result in results:
                with reading.mistakes_collected():
                    value = _value(result, where)
                    names = _names(value)
                    if names is not None:
                        shapes.append(Shape(where, _first_of(names, where), _sides(value, size, where)))
                        num_several_names += len(names) > 1
                    elif "id" not in result or str(result["id"]) not in named:
                        left_out.update(_kind(result, value))
            labels[image] = Labels(LabelledImage(image, image.name, *size, []), shapes)
    if several:
        reading.notes.append(f"of tasks with several annotations, only the first one is read: {len(several)}")
    if num_several_names:
        reading.notes.append(f"of shapes with several labels, only the first label is read: {num_several_names}")
    if unlabelled:
        what = "tasks that nobody labelled, or that were skipped, are left out, unless --allow_unlabelled is set"
        reading.notes.append(f"{what}: {len(unlabelled)}")
    for image in {*unlabelled} - owners.keys():
        reading.tree.leave(image, "in an unlabelled task")
    return _labelled(reading, labels, left_out)._replace(has_sizes=False)


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _image(reading: Reading, data: Any, file: Path, where: str, finder: ImageFinder) -> Path:
    """Returns a task's image, named by the key `image` or else by any value that looks like a path or URL."""
    texts = [value for value in data.values() if is_text(value) and value] if isinstance(data, dict) else []
    texts = [text for text in texts if text == data.get("image")] or [
        text
        for text in texts
        if "://" in text or "/data/" in text or PurePosixPath(text).suffix.lower() in reading.suffixes
    ]
    if not texts:
        raise DataFault("images that are missing", f"{where}: names no image. Write its path or URL under image.")
    for text in texts:
        for name in plain_names(text):
            if image := finder.find(name, file, where, by_annotation=False):
                return image
    raise reading.missing_image(texts[0], where)


def _value(result: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the class and sides of a region; in JSON-MIN, they are in the result itself."""
    value = result.get("value", result)
    if not isinstance(value, dict):
        raise DataFault(
            "regions without a value",
            f"{where}: a region's value is {value!r}, not its class and sides. Correct it, or remove the region.",
        )
    return value


def _names(value: Any) -> Any:
    """Returns the class names of a region; None if it has no class or no box."""
    if not isinstance(value, dict):
        return None
    names = next((value[key] for each in SHAPES if (key := f"{each}labels") in value), None)
    return value.get("labels") if names is None and any(key in value for key in SIDES) else names


def _first_of(names: Any, where: str) -> str:
    if not isinstance(names, list) or not names or not is_text(names[0]):
        raise DataFault("objects without a class", f"{where}: an object has no label. Give it one.")
    return names[0]


def _kind(result: dict[str, Any], value: dict[str, Any]) -> list[str]:
    """Returns what a region without a box is called, in a list; an empty list if it isn't a region."""
    kind = result.get("type") or next((key for key in value if key.endswith("labels")), None)
    return [str(kind)] if kind else []


def _sides(value: dict[str, Any], size: tuple[int, int], where: str) -> Sides:
    """Returns a region's box in pixels; Label Studio gives it in percent of the image's width and height."""
    scale_x, scale_y = (side / PERCENT for side in size)
    if "points" in value:
        return around_points(_points(value["points"], where, lambda x, y: (x * scale_x, y * scale_y)))
    is_ellipse = "radiusX" in value
    keys = ("x", "y", *(("radiusX", "radiusY") if is_ellipse else ("width", "height")))
    numbers = [number for key in keys if is_number(number := value.get(key))]
    rotation = value.get("rotation") or 0
    if len(numbers) < len(keys) or not is_number(rotation):
        raise DataFault("words that aren't numbers", f"{where}: a region lacks a number among {', '.join(keys)}.")
    x, y, wide, high = (number * scale for number, scale in zip(numbers, (scale_x, scale_y) * 2, strict=True))
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    if is_ellipse:
        half_wide, half_high = math.hypot(wide * cos, high * sin), math.hypot(wide * sin, high * cos)
        return x - half_wide, y - half_high, 2 * half_wide, 2 * half_high
    corners = ((0.0, 0.0), (wide, 0.0), (wide, high), (0.0, high))  # rotated about the first corner
    return around_points([(x + right * cos - down * sin, y + right * sin + down * cos) for right, down in corners])


def _points(
    points: Any, where: str, place: Callable[[float, float], tuple[float, float]]
) -> Sequence[tuple[float, float]]:
    if not isinstance(points, list) or not points:
        raise DataFault("shapes without points", f"{where}: a shape has no points. Draw it again, or remove it.")
    if not all(isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points):
        raise DataFault("words that aren't numbers", f"{where}: a shape's points are not all [x, y]. Correct them.")
    return [place(x, y) for x, y in points]


def read_labelme(reading: Reading) -> Labelled:
    """Reads labelme's JSON files; points and lines are left out and counted.

    Shapes with the same class and group_id form one object, as in labelme's own conversion to COCO. Mistakes in
    individual files and shapes are added to `reading`; any other mistake raises a UserError that names it.
    """
    files = [reading.source] if reading.source.is_file() else reading.files(".json")
    finder, left_out = ImageFinder(reading), Counter[str]()
    labels: dict[Path, Labels] = {}
    owners: dict[Path, str] = {}  # the files of the images
    has_sizes = True
    for file in files:
        with reading.mistakes_collected():
            content = _labelme_content(reading, file)
            if content is None:
                continue
            image_path = content.get("imagePath")
            name = image_path if is_text(image_path) else file.name
            image = _labelmes_image(reading, name.replace("\\", "/"), file, finder)
            wide, high = content.get("imageWidth"), content.get("imageHeight")
            known = (wide, high) if is_number(wide) and is_number(high) else None
            size = finder.size(image, str(file), known, str(file))
            has_sizes &= known is not None
            require_first(owners, image, str(file))
            labels[file] = Labels(LabelledImage(image, image.name, *size, []), [])
            groups: dict[Any, list[Shape]] = {}
            for number, shape in enumerate(_list(content["shapes"])):
                with reading.mistakes_collected():
                    for each in _labelme_shapes(shape, f"{file}: shape {number}", left_out):
                        group = shape.get("group_id")
                        groups.setdefault((each.name, repr(group)) if group is not None else number, []).append(each)
            labels[file].shapes.extend(map(_together, groups.values()))
    if not labels and not reading.mistakes:
        raise UserError(f"{reading.source}: contains no labelme JSON files with shapes. Put them there.")
    return _labelled(reading, labels, left_out)._replace(has_sizes=has_sizes)


def _labelmes_image(reading: Reading, name: str, file: Path, finder: ImageFinder) -> Path:
    """Returns the image at the path `name`, relative to the folder of `file`, or else an image of the same name.

    With --image_path, an image of that name is looked for there instead. Raises DataFault if there is no such image.
    """
    place = Path(os.path.normpath(file.parent / name))
    if not reading.told.image_path and not Path(name).is_absolute():
        beside = reading.tree.find(place)
        if beside and beside.is_file():
            return beside
    image = finder.find(name if reading.told.image_path else Path(name).name, file, str(file))
    if image is None:
        raise reading.missing_image(name, str(file), place)
    return image


def _labelme_content(reading: Reading, file: Path) -> dict[str, Any] | None:
    try:
        content = read_json(file)
    except UserError as fault:
        reading.tree.leave(file, "not JSON")
        raise DataFault("files that aren't JSON", str(fault)) from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        reading.tree.leave(file, "JSON without shapes")
        return None
    reading.tree.read(file)
    return content


def _labelme_shapes(shape: dict[str, Any], where: str, left_out: Counter[str]) -> Iterator[Shape]:
    kind = shape.get("shape_type") or "polygon"
    if kind not in ("rectangle", "polygon", "circle", "mask"):
        left_out[str(kind)] += 1
        return
    name = shape.get("label")
    if not is_text(name) or not name.strip():
        raise DataFault("objects without a class", f"{where}: has no label. Give it one.")
    points = _points(shape.get("points"), where, lambda x, y: (x, y))
    sides = around_points(points)
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        sides = (x - radius, y - radius, 2 * radius, 2 * radius)
    yield Shape(where, name.strip(), sides)


def _together(shapes: list[Shape]) -> Shape:
    """Merges the shapes of an object into one shape."""
    corners = [
        corner for _, _, (left, top, width, height) in shapes for corner in ((left, top), (left + width, top + height))
    ]
    return shapes[0]._replace(sides=around_points(corners))


def _labelled(reading: Reading, labels: dict[Path, Labels], left_out: Counter[str]) -> Labelled:
    names = sorted({shape.name for each in labels.values() for shape in each.shapes})
    if not names:
        reading.fail(f"{reading.source}: no image has an object with a box, so there are no classes.")
    images = {}
    for key, (image, shapes) in labels.items():
        boxes: list[Box] = []
        for shape in shapes:
            with reading.mistakes_collected():
                boxes.append(clear_box(names.index(shape.name), shape.sides, shape.where))
        images[key] = image._replace(boxes=boxes)
    reading.notes += without_box(left_out)
    return Labelled(names, sets_by_folder(reading, images), notes=reading.notes)

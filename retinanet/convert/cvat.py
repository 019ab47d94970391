"""Reads CVAT's own XML, "CVAT for images 1.1": one file with all images and shapes.

See https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ for the format.
"""

import math
from collections import Counter
from pathlib import Path

from retinanet.coco.folder import WITHOUT_SPLIT, known_set
from retinanet.convert.image_files import NO_SET, ImageFinder, require_first, set_of
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage, require_unique
from retinanet.convert.shapes import around_points, around_rotated, clear_box, without_box
from retinanet.convert.voc import Element, read_xml
from retinanet.runtime.errors import DataFault, UserError

WITHOUT_BOX = ("points", "polyline", "cuboid", "skeleton", "tag")  # elements, and also types of labels


def read_cvat(reading: Reading) -> Labelled:
    """Reads annotations.xml.

    Masks and outlines become boxes; points, lines, cuboids, skeletons and tags are left out and counted. Mistakes in
    individual images and shapes are added to `reading`; any other mistake raises a UserError that names it.
    """
    file = reading.source if reading.source.is_file() else _only_file(reading)
    root = read_xml(file)
    reading.tree.read(file)
    if root.name != "annotations":
        raise UserError(f"{file}:{root.line}: begins with <{root.name}>, not <annotations>. Use --from voc.")
    if root.all("track"):
        raise UserError(f"{file}: holds the tracks of a video. Export it from CVAT as CVAT for images 1.1.")
    images = root.all("image")
    names = _classes(root)
    if not names:
        names = sorted({shape.attributes.get("label", "") for image in images for shape in image.children} - {""})
    if not names:
        raise UserError(f"{file}: names no class. Export the task again.")
    require_unique(names, str(file))
    finder, left_out = ImageFinder(reading), Counter[str]()
    sets: dict[str, dict[Path, LabelledImage]] = {}
    others: dict[Path, LabelledImage] = {}  # in subsets with names of their own
    owners: dict[Path, str] = {}  # the names of the images
    for element in images:
        with reading.mistakes_collected():
            image, subset = _image(reading, element, file, names, finder, left_out)
            require_first(owners, image.path, f"{file}:{element.line}", element.attributes["name"])
            name = known_set(subset) or ""
            is_other = subset and not name and subset.lower() not in WITHOUT_SPLIT
            (others if is_other else sets.setdefault(name, {}))[image.path] = image
    if others and any(sets):
        example = next(iter(others))
        what = "images in subsets other than train, val and test are left out"
        reading.notes.append(f"{what}: {len(others)}, such as {example}")
        for path in others:
            reading.tree.leave(path, "in a subset that isn't a set")
    elif others:
        sets[""] = sets.get("", {}) | others
    if "" in sets and len(sets) == 1 and not reading.told.set:
        reading.notes.append(NO_SET)
    if "" in sets:
        sets["train"] = sets.pop("") | sets.get("train", {})
    reading.notes += without_box(left_out)
    if not sets:
        reading.fail(f"{file}: has no images. Export the task again.")
    return Labelled(names, [set_of(name, each) for name, each in sets.items()], notes=reading.notes)


def _only_file(reading: Reading) -> Path:
    files = [path for path in reading.files(".xml") if path.parent == reading.root]
    if len(files) != 1:
        raise UserError(f"{reading.root}: has {len(files)} XML files. Use the path of CVAT's annotations.xml.")
    return files[0]


def _classes(root: Element) -> list[str]:
    """Returns the names of the labels in the order of the task, except unused labels of a type that has no box.

    The labels left out include the points of a skeleton, which CVAT lists as separate labels.
    """
    shapes = [shape for image in root.all("image") for shape in image.children if shape.name not in WITHOUT_BOX]
    used = {shape.attributes.get("label") for shape in shapes}
    names = []
    waiting = list(root.all("meta"))
    while waiting:
        element = waiting.pop(0)
        for label in element.all("labels"):
            for each in label.all("label"):
                name, kind = ("" if part is None else part.text.strip() for part in map(each.first, ("name", "type")))
                names += [name] * (bool(name) and (kind not in WITHOUT_BOX or name in used))
        waiting += [child for child in element.children if child.name != "labels"]
    return list(dict.fromkeys(names))


def _image(
    reading: Reading, element: Element, file: Path, names: list[str], finder: ImageFinder, left_out: Counter[str]
) -> tuple[LabelledImage, str]:
    """Returns an image with its boxes, and the name of its subset."""
    where = f"{file}:{element.line}"
    name = element.attributes.get("name", "")
    path = finder.find(name, file, where, by_annotation=False) if name else None
    if path is None:
        raise reading.missing_image(name, where)
    annotated = (_number(element, "width", where), _number(element, "height", where))
    width, height = finder.size(path, where, annotated, where)
    boxes = []
    for shape in element.children:
        if shape.name in WITHOUT_BOX:
            left_out[shape.name] += 1
        elif shape.name != "attribute":
            with reading.mistakes_collected():
                boxes.append(_box(shape, names, f"{file}:{shape.line}"))
    return LabelledImage(path, path.name, width, height, boxes), element.attributes.get("subset", "")


def _box(shape: Element, names: list[str], where: str) -> Box:
    label = shape.attributes.get("label", "")
    if label not in names:
        raise DataFault("classes that aren't in the list", f"{where}: label {label!r} is not among the task's labels.")

    def numbers(*keys: str) -> list[float]:
        return [_number(shape, key, where) for key in keys]

    rotation = _number(shape, "rotation", where) if "rotation" in shape.attributes else 0.0
    if shape.name == "box":
        x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
        sides = around_rotated(x1, y1, x2 - x1, y2 - y1, rotation)
    elif shape.name == "ellipse":
        x, y, wide, high = numbers("cx", "cy", "rx", "ry")
        cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        half_wide, half_high = math.hypot(wide * cos, high * sin), math.hypot(wide * sin, high * cos)
        sides = (x - half_wide, y - half_high, 2 * half_wide, 2 * half_high)
    elif shape.name == "mask":
        left, top, wide, high = numbers("left", "top", "width", "height")
        sides = (left, top, wide, high)
    elif shape.name == "polygon":
        try:
            pairs = [pair.split(",") for pair in shape.attributes.get("points", "").split(";")]
            sides = around_points([(float(x), float(y)) for x, y in pairs])
        except ValueError:
            raise DataFault("words that aren't numbers", f"{where}: its points aren't x,y;x,y. Correct them.") from None
    else:
        raise DataFault("shapes that aren't known", f"{where}: <{shape.name}> is not a CVAT shape. Remove it.")
    return clear_box(names.index(label), sides, where)


def _number(element: Element, name: str, where: str) -> float:
    try:
        number = float(element.attributes[name])
    except (KeyError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        text = element.attributes.get(name)
        raise DataFault("words that aren't numbers", f"{where}: {name} is {text!r}, not a number. Correct it.")
    return number

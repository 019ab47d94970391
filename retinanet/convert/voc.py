"""Reads PASCAL VOC annotations: an XML file per image in Annotations/, and a list per set in ImageSets/Main/."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from retinanet.coco.folder import SETS, set_name_of, spellings_of
from retinanet.convert.sets import (
    Box,
    Labelled,
    LabelledImage,
    LabelledSet,
    require_unique,
    size_of,
    text_of,
)
from retinanet.data.images import image_suffixes
from retinanet.runtime.errors import CANT_READ, UserError, file_error_explained
from retinanet.runtime.text_files import decoded_xml
from retinanet.settings.shared import RAW, UPRIGHT

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", ".")
WITHOUT = "-1"
FLAGS = ("1", "0", WITHOUT)  # in a list for one class: of it, difficult ones of it, without it
CLASS_LISTS = ("labels.txt", "classes.txt")


@dataclass
class Element:
    name: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, name: str) -> list["Element"]:
        return [child for child in self.children if child.name == name]

    def first(self, name: str) -> "Element | None":
        return next(iter(self.all(name)), None)


def read_xml(path: Path) -> Element:
    """Returns the root element of an XML file. Raises UserError, with the line of the mistake, for other files."""
    with file_error_explained(path, CANT_READ, "Check the path."):
        content = decoded_xml(path.read_bytes(), path)
    parser = expat.ParserCreate("utf-8")
    outside = Element("", 0)
    stack = [outside]

    def start(name: str, attributes: object) -> None:
        element = Element(name, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(name: str) -> None:
        stack.pop()

    def text(letters: str) -> None:
        stack[-1].text += letters

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}:{parser.CurrentLineNumber}: declares a document type. Remove it; annotations don't need it."
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = refuse  # a document type could define entities that expand without end
    try:
        parser.Parse(content, True)
    except expat.ExpatError as fault:
        raise UserError(
            f"{path}:{fault.lineno}: is not XML ({expat.ErrorString(fault.code)}). Correct the file."
        ) from None
    return outside.children[0]


def read_voc(source: Path, exif: str = UPRIGHT) -> Labelled:
    """Reads the sets listed in ImageSets/Main or, without lists, all images as train. Difficult objects become crowds.

    Classes are in the order of labels.txt or classes.txt, or sorted by name if there is neither. Raises UserError,
    which names the file and line of the mistake.
    """
    root = source.parent if source.is_file() else source
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    images = _images_by_stem(root)
    pattern = "*.xml" if folder == root else "**/*.xml"
    stems = {path: path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.glob(pattern))}
    by_stem = {stem: _labelled(path, stem, images, exif) for path, stem in stems.items()}
    if not by_stem:
        raise UserError(f"{folder}: has no XML files. Put the annotations there.")
    class_list = next((root / name for name in CLASS_LISTS if (root / name).exists()), None)
    if class_list:
        names = [line.strip() for line in text_of(class_list).splitlines() if line.strip()]
        require_unique(names, str(class_list))
    else:
        names = sorted({name for _, objects in by_stem.values() for name, _, _ in objects})
    if not names:
        raise UserError(
            f"{folder}: no file has an object, so there are no classes. List them in {root / CLASS_LISTS[0]}."
        )
    finished = {
        stem: _with_labels(folder / f"{stem}.xml", *parts, names, class_list) for stem, parts in by_stem.items()
    }
    lists = [root / "ImageSets" / "Main" / f"{name}.txt" for set_name in SETS for name in spellings_of(set_name)]
    if not any(path.exists() for path in lists):
        notes = ["there is no ImageSets/Main with lists of the sets, so all images are train: --split divides them"]
        return Labelled(names, [LabelledSet("train", list(finished.values()))], notes=notes)
    sets = [LabelledSet(set_name_of(path.stem), _listed(path, finished)) for path in lists if path.exists()]
    listed = {image.path for labelled_set in sets for image in labelled_set.images}
    left = len(finished) - len(listed)
    return Labelled(names, sets, notes=[f"{left} images are in no list, and are left out"] if left else [])


def _listed(file: Path, images: dict[str, LabelledImage]) -> list[LabelledImage]:
    listed = []
    for number, line in enumerate(text_of(file).splitlines(), 1):
        words = line.split()
        stem = line.strip()
        if stem not in images and len(words) > 1 and words[-1] in FLAGS:
            stem = stem.removesuffix(words[-1]).rstrip()
            if words[-1] == WITHOUT:
                continue
        if stem:
            if stem not in images:
                raise UserError(f"{file}:{number}: there is no Annotations/{stem}.xml. Remove the line.")
            listed.append(images[stem])
    if not listed:
        raise UserError(f"{file}: lists no image. Add the names of its images, or remove the file.")
    return listed


def _images_by_stem(root: Path) -> dict[str, tuple[Path, str]]:
    """Returns each image and its name relative to the image folder, by that name without its suffix."""
    folder = next(root / name for name in IMAGE_FOLDERS if (root / name).is_dir())
    suffixes = image_suffixes()
    files = sorted(folder.iterdir() if folder == root else folder.rglob("*"))
    names = {path: path.relative_to(folder) for path in files if path.suffix.lower() in suffixes}
    return {name.with_suffix("").as_posix(): (path, name.as_posix()) for path, name in names.items()}


Named = tuple[str, int, Box]  # class, line, box


def _labelled(
    path: Path, stem: str, images: dict[str, tuple[Path, str]], exif: str
) -> tuple[LabelledImage, list[Named]]:
    """Returns the image of an XML file, still without boxes, and its objects with their class names."""
    root = read_xml(path)
    if root.name != "annotation":
        raise UserError(f"{path}:{root.line}: begins with <{root.name}>, not <annotation>. Remove or replace the file.")
    file_name = _text(root, "filename", path)
    image, name = images.get(stem) or images.get(Path(file_name).stem) or (None, "")
    if image is None:
        raise UserError(f"{path}:{root.line}: there is no image {file_name}. Put it into JPEGImages.")
    width, height = size_of(image, str(path), exif)
    size = root.first("size")
    if size is not None:
        annotated = tuple(round(_number(size, name, path)) for name in ("width", "height"))
        other = size_of(image, str(path), RAW if exif == UPRIGHT else UPRIGHT)
        if annotated == other:  # the size proves the frame of the boxes
            width, height = other
        elif annotated != (width, height) and annotated != (0, 0):
            raise UserError(
                f"{path}:{size.line}: says {annotated[0]} x {annotated[1]}, but {image} is {width} x {height} (width x "
                "height). Use the image that was annotated, or correct the size."
            )
    objects = [_object(element, path) for element in root.all("object")]
    return LabelledImage(image, name, width, height, []), objects


def _object(element: Element, path: Path) -> Named:
    name = _text(element, "name", path)
    box = element.first("bndbox")
    if box is None:
        raise UserError(f"{path}:{element.line}: an object without <bndbox>. Add the box, or remove the object.")
    x1, y1, x2, y2 = (_number(box, side, path) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise UserError(f"{path}:{box.line}: xmax or ymax is below xmin or ymin. Correct the box.")
    difficult = element.first("difficult")
    is_difficult = difficult is not None and difficult.text.strip() not in ("", "0")
    # VOC counts pixels from 1, and the box includes its last pixel.
    return name, element.line, Box(-1, x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1, is_difficult)


def _with_labels(
    path: Path, image: LabelledImage, objects: Sequence[Named], names: list[str], class_list: Path | None
) -> LabelledImage:
    boxes = []
    for name, line, box in objects:
        if name not in names:
            raise UserError(f"{path}:{line}: class {name!r} is not in {class_list}. Add it there, or correct the name.")
        boxes.append(box._replace(label=names.index(name)))
    return image._replace(boxes=boxes)


def _text(element: Element, name: str, path: Path) -> str:
    child = element.first(name)
    if child is None or not child.text.strip():
        raise UserError(f"{path}:{element.line}: <{element.name}> has no <{name}>. Add it.")
    return child.text.strip()


def _number(element: Element, name: str, path: Path) -> float:
    child, text = element.first(name), _text(element, name, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}:{child.line if child else 0}: <{name}> is {text!r}, not a number. Correct it.")
    return number

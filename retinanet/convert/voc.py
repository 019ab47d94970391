"""Reads PASCAL VOC annotations: an XML file per image, and optionally a list of the images of each set."""

import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

from retinanet.coco.folder import SETS, known_set
from retinanet.convert.image_files import ImageFinder, require_first, set_of, sets_by_folder
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet, require_unique
from retinanet.convert.shapes import DECIMALS, around_rotated
from retinanet.runtime.errors import CANT_READ, DataFault, UserError, file_error_explained
from retinanet.runtime.text_files import decoded_xml

CLASS_LISTS = ("labels.txt", "classes.txt", "labelmap.txt")
DIFFICULT, NOT_DIFFICULT = ("1", "true", "yes"), ("", "0", "false", "no", "unspecified")


@dataclass
class Element:
    name: str
    line: int
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Element"] = field(default_factory=list)

    def all(self, name: str) -> list["Element"]:
        return [child for child in self.children if child.name == name]

    def first(self, name: str) -> "Element | None":
        return next(iter(self.all(name)), None)


def read_xml(path: Path) -> Element:
    """Returns the root element of an XML file. Raises UserError, naming the line of the mistake, if it isn't valid."""
    with file_error_explained(path, CANT_READ, "Check the path."):
        content = decoded_xml(path.read_bytes(), path)
    parser = expat.ParserCreate("utf-8")
    outside = Element("", 0)
    stack = [outside]

    def start(name: str, attributes: dict[str, str]) -> None:
        element = Element(name, parser.CurrentLineNumber, attributes=attributes)
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


def read_voc(reading: Reading) -> Labelled:
    """Reads an XML file per image, from any folder. Difficult objects become crowds.

    Sets come from the lists in ImageSets/Main or the folders train, valid and test; without these, there is only train.
    Classes are in the order of labels.txt, classes.txt or labelmap.txt, or sorted by name if there is no such file.
    Mistakes in individual files and objects are added to `reading`; any other mistake raises a UserError that names it.
    """
    files = reading.files(".xml")
    if not files:
        raise UserError(f"{reading.root}: has no XML files. Put the annotations there.")
    finder = ImageFinder(reading)
    pictures: dict[Path, Picture] = {}
    owners: dict[Path, str] = {}  # the files of the images
    for file in files:
        with reading.mistakes_collected():
            if (picture := _picture(reading, file, finder)) is not None:
                require_first(owners, picture.image.path, str(file))
                pictures[file] = picture
    is_cvats = any((reading.root / name).exists() for name in ("labelmap.txt", "annotations.xml")) or any(
        picture.is_cvats for picture in pictures.values()
    )
    shift = _shift(reading, pictures, is_cvats)
    names, class_list = _classes(reading, pictures)
    boxed, num_turned = {}, 0
    for file, picture in pictures.items():
        boxes = []
        for element in picture.objects:
            with reading.mistakes_collected():
                boxes.append(_box(element, file, names, class_list, shift))
                num_turned += _rotation(element, file) != 0
        boxed[file] = picture.image._replace(boxes=boxes)
    if num_turned:
        reading.notes.append(f"rotated boxes are read as the upright boxes around them: {num_turned}")
    if not names:
        reading.fail(
            f"{files[0].parent}: no file has an object, so there are no classes. List them in "
            f"{reading.root / CLASS_LISTS[0]}."
        )
    images = [path for path in reading.images() if not reading.tree.is_read(path)]
    reading.require_labels(
        "the dataset", len(boxed), len(boxed) + len(images), f"an XML file of the same name for each, in {reading.root}"
    )
    sets = _listed_sets(reading, boxed) or sets_by_folder(reading, boxed)
    for file in reading.files(".txt"):
        if not reading.tree.is_read(file) and "ImageSets" in file.parts:
            reading.tree.leave(file, "listing images")
    is_roboflows = any(path.name == "README.roboflow.txt" for path in reading.files(".txt")) or any(
        file.parent.name == "valid" and picture.image.path.parent == file.parent for file, picture in pictures.items()
    )
    export = "CVAT's PASCAL VOC" if is_cvats else "Roboflow's PASCAL VOC" if is_roboflows else ""
    has_sizes = all(picture.has_size for picture in pictures.values())
    return Labelled(names, sets, notes=reading.notes, export=export, has_sizes=has_sizes)


class Picture(NamedTuple):
    """The content of an XML file: its image, to which no boxes have been added yet, and the elements of its objects."""

    image: LabelledImage
    objects: list[Element]
    is_cvats: bool
    has_size: bool  # False if the file doesn't say the image's size


def _picture(reading: Reading, path: Path, finder: ImageFinder) -> Picture | None:
    try:
        root = read_xml(path)
    except UserError as fault:
        reading.tree.leave(path, "not XML")
        raise DataFault("files that aren't XML", str(fault)) from None
    reading.tree.read(path)
    if root.name == "annotations":
        raise UserError(f"{path}:{root.line}: is CVAT's own XML. Convert it with --from cvat.")
    if root.name != "annotation":
        raise DataFault(
            "XML files without <annotation>",
            f"{path}:{root.line}: begins with <{root.name}>, not <annotation>. Remove or replace the file.",
        )
    file_name = _text(root, "filename", path)
    image = finder.find(file_name, path, f"{path}:{root.line}")
    if image is None:
        raise reading.missing_image(file_name, f"{path}:{root.line}")
    size = root.first("size")
    annotated = None if size is None else (_number(size, "width", path), _number(size, "height", path))
    width, height = finder.size(image, str(path), annotated, f"{path}:{size.line if size else 0}")
    attributes = [each for element in root.all("object") for each in element.all("attributes")]
    names = {_text(one, "name", path) for each in attributes for one in each.all("attribute")}
    labelled = LabelledImage(image, image.name, width, height, [])
    return Picture(labelled, root.all("object"), "rotation" in names, annotated not in (None, (0, 0)))


def _classes(reading: Reading, pictures: dict[Path, Picture]) -> tuple[list[str], Path | None]:
    """Returns the classes and the path of the file that lists them; the path is None if there is no such file."""
    used = {
        child.text.strip()
        for picture in pictures.values()
        for element in picture.objects
        if (child := element.first("name")) is not None and child.text.strip()
    }
    class_list = next((path for name in CLASS_LISTS if (path := reading.root / name).exists()), None)
    if class_list is None:
        return sorted(used), None
    lines = [line.strip() for line in reading.text(class_list).splitlines()]
    names = [line for line in lines if line]
    if class_list.name == "labelmap.txt":  # CVAT's lines: label:colour:parts:actions
        names = [line.partition(":")[0] for line in names if not line.startswith("#")]
        names = [name for name in names if name != "background" or name in used]
    require_unique(names, str(class_list))
    return names, class_list


def _shift(reading: Reading, pictures: dict[Path, Picture], is_cvats: bool) -> int:
    """Returns the first pixel's number: 0 in CVAT's files, or if a box begins before pixel 1; else 1, as in VOC."""
    if is_cvats:
        return 0
    for file, picture in pictures.items():
        for element in picture.objects:
            for box in element.all("bndbox"):
                for side in ("xmin", "ymin"):
                    child = box.first(side)
                    try:
                        value = float(child.text) if child is not None else 1
                    except ValueError:
                        continue
                    if value < 1:
                        reading.notes.append(
                            f"{file.name} has {side} {value:g}, so the coordinates count from 0 and not, as in PASCAL "
                            "VOC, from 1"
                        )
                        return 0
    return 1


def _box(element: Element, path: Path, names: list[str], class_list: Path | None, shift: int) -> Box:
    name = _text(element, "name", path)
    if name not in names:
        raise DataFault(
            "classes that aren't in the list",
            f"{path}:{element.line}: class {name!r} is not in {class_list}. Add it there, or correct the name.",
        )
    box = element.first("bndbox")
    if box is None:
        raise DataFault(
            "objects without a box",
            f"{path}:{element.line}: an object without <bndbox>. Add the box, or remove the object.",
        )
    x1, y1, x2, y2 = (_number(box, side, path) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1 or (not shift and (x2 == x1 or y2 == y1)):
        raise DataFault(
            "boxes without area", f"{path}:{box.line}: xmax or ymax is below xmin or ymin. Correct the box."
        )
    # VOC counts pixels from 1, and the box includes its last pixel.
    sides = (x1 - shift, y1 - shift, x2 - x1 + shift, y2 - y1 + shift)
    if rotation := _rotation(element, path):
        left, top, width, height = (round(side, DECIMALS) for side in around_rotated(*sides, rotation))
        sides = (left, top, width, height)
    return Box(names.index(name), *sides, _is_difficult(element, path))


def _rotation(element: Element, path: Path) -> float:
    """Returns the attribute `rotation` of an object in degrees: CVAT writes the box as it was before it was rotated."""
    for each in element.all("attributes"):
        for attribute in each.all("attribute"):
            if _text(attribute, "name", path) == "rotation":
                return _number(attribute, "value", path) % 360
    return 0.0


def _is_difficult(element: Element, path: Path) -> bool:
    difficult = element.first("difficult")
    word = "" if difficult is None else difficult.text.strip().lower()
    if word not in DIFFICULT and word not in NOT_DIFFICULT:
        raise DataFault(
            "words for difficult that aren't known",
            f"{path}:{difficult.line if difficult else 0}: <difficult> is {word!r}. Write 1 or 0.",
        )
    return word in DIFFICULT


def _listed_sets(reading: Reading, images: dict[Path, LabelledImage]) -> list[LabelledSet]:
    """Returns the sets listed in train.txt (or trainval.txt, if there is no train.txt), val.txt and test.txt."""
    files = [path for path in reading.files(".txt") if path.parent.name == "Main"]
    files = files or [path for path in reading.files(".txt") if path.parent == reading.root]
    lists = {file: known_set(file.stem) for file in files if known_set(file.stem)}
    both = [file for file in files if file.stem.lower() == "trainval"]
    if "train" not in lists.values():
        lists |= dict.fromkeys(both, "train")
    by_name: dict[str, list[Path]] = {}
    for file in images:
        relative = file.with_suffix("")
        for name in {relative.name, *(Path(*relative.parts[-count:]).as_posix() for count in (2, 3))}:
            by_name.setdefault(name, []).append(file)
    by_name |= {_below_annotations(file, reading.root).as_posix(): [file] for file in images}
    listed = {file: _listed(reading, file, by_name) for file in lists}
    sets: dict[str, list[Path]] = {}
    for file, set_name in lists.items():
        others = {path for other, paths in listed.items() for path in paths if other not in both}
        paths = [path for path in listed[file] if file not in both or path not in others]
        sets.setdefault(set_name or "", []).extend(paths)
    if not sets:
        return []
    in_a_list = {path for paths in sets.values() for path in paths}
    if left := images.keys() - in_a_list:
        reading.notes.append(f"images in no list are left out: {len(left)}")
    for file in left:
        reading.tree.leave(file, "annotating an image in no list")
        reading.tree.leave(images[file].path, "in no list")
    return [set_of(name, {file: images[file] for file in sets[name]}) for name in SETS if name in sets]


def _below_annotations(file: Path, root: Path) -> Path:
    """Returns a file's path without its suffix, relative to the folder Annotations or, if there is none, to `root`."""
    relative = file.with_suffix("").relative_to(root)
    places = [number for number, part in enumerate(relative.parts[:-1]) if part.lower() == "annotations"]
    return Path(*relative.parts[places[0] + 1 :]) if places else relative


def _listed(reading: Reading, file: Path, by_name: dict[str, list[Path]]) -> list[Path]:
    """Returns the annotation files that a list names.

    A line may hold a stem, a file name, a path, or the paths of both the image and the annotation file.
    """
    listed: dict[Path, None] = {}
    is_empty = True
    for number, line in enumerate(reading.text(file).splitlines(), 1):
        text = line.strip().replace("\\", "/")
        if not text:
            continue
        words = text.rsplit(maxsplit=1)
        is_marked = len(words) == 2 and words[1] in ("-1", "0", "1")  # in a list for one class; -1: the image lacks it
        path = PurePosixPath(text)
        names = [text, (path.parent / path.stem).as_posix(), path.stem]
        names += [words[0]] * is_marked + [PurePosixPath(text.split()[0]).stem]
        found = next((by_name[name] for name in names if name in by_name), None)
        if is_marked and words[1] == "-1" and text not in by_name:
            continue
        is_empty = False
        with reading.mistakes_collected():
            if found is None:
                raise DataFault(
                    "listed images without annotations",
                    f"{file}:{number}: there is no Annotations/{names[-1]}.xml. Remove the line.",
                )
            if len(found) > 1:
                raise DataFault(
                    "names of several images",
                    f"{file}:{number}: both {found[0]} and {found[1]} may be {text}. Write the path from Annotations.",
                )
            listed[found[0]] = None
    if is_empty:
        raise UserError(f"{file}: lists no image. Add the names of its images, or remove the file.")
    return list(listed)


def _text(element: Element, name: str, path: Path) -> str:
    child = element.first(name)
    if child is None or not child.text.strip():
        raise DataFault("missing elements", f"{path}:{element.line}: <{element.name}> has no <{name}>. Add it.")
    return child.text.strip()


def _number(element: Element, name: str, path: Path) -> float:
    child, text = element.first(name), _text(element, name, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataFault(
            "words that aren't numbers",
            f"{path}:{child.line if child else 0}: <{name}> is {text!r}, not a number. Correct it.",
        )
    return number

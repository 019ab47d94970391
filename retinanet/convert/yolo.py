"""Reads YOLO labels: a list of the classes, and a text file for each image, with a line per object."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from retinanet.coco.folder import SETS, export_above, known_set
from retinanet.coco.formats import YOLO_ROW
from retinanet.convert.image_files import LABEL_STUDIOS, NO_SET, ImageFinder, num_shared
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet, require_unique
from retinanet.convert.yolo_rows import Row, box_of, meaning_of, row_of
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.tree import folded

YAMLS = (".yaml", ".yml")
CLASS_LISTS = ("obj.names", "classes.txt", "predefined_classes.txt")  # CVAT and darknet; Label Studio; LabelImg
LEFT_LABELS = "labelling an image in no set"
ELSEWHERE = "isn't on this machine"
NOTHING = ("", "~", "null", "Null", "NULL")  # an empty value in YAML
ABOUT_NAMES = "Write one, such as:  train: images/train  val: images/val  names: [cat, dog]  (each on a line)"


class Layout(NamedTuple):
    """The classes of a dataset, and the images of its sets, grouped by the folder to which their names are relative."""

    classes: dict[int, str]  # names by the number in label files
    where: str  # the file that lists the classes
    sets: dict[str, dict[Path, list[Path]]]
    points: list[int] | None  # kpt_shape
    export: str


def read_yolo(reading: Reading) -> Labelled:
    """Reads the sets named in data.yaml or obj.data or, if neither names any, the sets found in the folder.

    Mistakes in individual rows are added to `reading`; any other mistake raises a UserError that names it.
    """
    layout = _layout(reading)
    names, labels = list(layout.classes.values()), {number: row for row, number in enumerate(layout.classes)}
    if not names:
        raise UserError(f"{layout.where}: lists no class. Write a class per line, or name them with --names cat dog.")
    require_unique(names, layout.where)
    named = {name: _with_names(reading, folders) for name, folders in layout.sets.items()}
    label_files = _label_files(reading, [path for images in named.values() for path, _ in images])
    named = {name: [pair for pair in images if pair[0] in label_files] for name, images in named.items()}
    rows_of = {}
    for image, file in label_files.items():
        rows_of[image] = _rows(reading, file, labels) if file else []
    longer = [row for rows in rows_of.values() for row in rows if len(row.numbers) > 4]
    meaning = reading.told.rows or meaning_of(longer, layout.points)
    sets = []
    for name, images in named.items():
        if images:
            labelled = sum(label_files[path] is not None for path, _ in images)
            example = images[0][0]
            places = " and ".join(str(place) for place in _label_places(example))
            if reading.told.image_path:
                places = f"files of the same names in {reading.root}, such as {example.stem}.txt,"
            reading.require_labels(name, labelled, len(images), f"{places} for {example}")
        boxed = []
        for path, image_name in images:
            with reading.mistakes_collected():
                width, height = reading.size(path, str(path))
                boxes: list[Box] = []
                for row in rows_of[path]:
                    with reading.mistakes_collected():
                        boxes.append(box_of(row, meaning, layout.points, (width, height)))
                boxed.append(LabelledImage(path, image_name, width, height, boxes))
        sets.append(LabelledSet(name, boxed))
    if without := sum(file is None for file in label_files.values()):
        reading.notes.append(f"images without a label file have no objects: {without}")
    _explain_others(reading)
    return Labelled(names, sets, notes=reading.notes, export=layout.export, has_sizes=False)


def _rows(reading: Reading, file: Path, labels: dict[int, int]) -> list[Row]:
    rows: list[Row] = []
    lines: list[str] = []
    with reading.mistakes_collected():
        lines = reading.text(file).splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            with reading.mistakes_collected():
                rows.append(row_of(line, labels, f"{file}:{number}"))
    return rows


def _explain_others(reading: Reading) -> None:
    """Records what the text files that weren't read seem to be."""
    stems = {path.stem for path in reading.images()}
    for file in reading.files(".txt"):
        if not reading.tree.is_read(file):
            with open(file, "rb") as lines:
                first = lines.readline(1000)
            if not first.strip() or re.match(YOLO_ROW, first):
                reading.tree.leave(file, LEFT_LABELS if file.stem in stems else "without a matching image")
            elif known_set(file.stem):
                reading.tree.leave(file, "listing images")


def _layout(reading: Reading) -> Layout:
    source = reading.source
    if source.suffix.lower() == ".data" or (source.is_dir() and not _yamls(reading) and _at_root(reading, ".data")):
        return _darknet(reading, source if source.is_file() else _at_root(reading, ".data")[0])
    if (source.is_file() and source.suffix.lower() in YAMLS) or (source.is_dir() and _yamls(reading)):
        return _of_yaml(reading, source if source.is_file() else _only_yaml(reading))
    names, where = _listed_classes(reading)
    sets, has_list = _sets_by_folder(reading)
    export = ""
    if Path(where).name == CLASS_LISTS[1]:
        has_folder = any("labels" in path.relative_to(reading.root).parts for path in reading.files(".txt"))
        export = "" if has_folder else "LabelImg's YOLO"
        if (reading.root / "notes.json").exists():
            export = "Label Studio's YOLO"
    if has_list and Path(where).name == CLASS_LISTS[0]:
        export = "CVAT's YOLO 1.1"
    return Layout(dict(enumerate(names)), where, sets, None, export)


def _at_root(reading: Reading, *suffixes: str) -> list[Path]:
    return [path for path in reading.files(*suffixes) if path.parent == reading.root]


def _yamls(reading: Reading) -> list[Path]:
    return _at_root(reading, *YAMLS)


def _only_yaml(reading: Reading) -> Path:
    files = _yamls(reading)
    named = files if len(files) == 1 else [file for file in files if file.stem.lower() in ("data", "dataset")]
    if len(named) == 1:
        return named[0]
    raise UserError(f"{reading.root}: has {len(files)} YAML files. Use the path of the file that lists the classes.")


def _of_yaml(reading: Reading, file: Path) -> Layout:
    content = _yaml(reading, file)
    names = _class_names(content, file)
    _require_no_names(reading, file)
    roots = _roots(content, file)
    sets: dict[str, dict[Path, list[Path]]] = {}
    has_list = False
    values = {key: value for key, value in content.items() if known_set(key) and value and value not in NOTHING}
    for key, value in values.items():
        folders = _images(reading, value, roots, file, key, is_only_set=len(values) == 1)
        has_list = has_list or ".txt" in str(value)
        for folder, images in folders.items():
            sets.setdefault(known_set(key) or "", {}).setdefault(folder, []).extend(images)
    sets = {name: sets[name] for name in SETS if name in sets}
    if not any(known_set(key) for key in content):
        sets, _ = _sets_by_folder(reading)
    if not sets:
        reading.fail(f"{file}: names no set. Add a line such as train: images/train")
    export = ""
    if "roboflow" in content or (file.parent / "README.roboflow.txt").exists():
        export = "Roboflow's YOLO"
    elif has_list and isinstance(content.get("names"), dict):
        export = "Ultralytics' YOLO"
    return Layout(names, str(file), sets, _points(content, file), export)


def _yaml(reading: Reading, file: Path) -> dict[str, Any]:
    """Returns the content of a YAML file, with all values as strings, so that a class may be called `no`."""
    try:
        import yaml
    except ImportError:
        raise UserError(f"{file}: reading it needs PyYAML. Install it with: pip install pyyaml") from None
    try:
        content = yaml.load(reading.text(file), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{file}{line}: is not YAML ({getattr(fault, 'problem', fault)}). Correct the file.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: lacks the lines names: and train:. Add them.")
    return content


def _class_names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Returns the class names, keyed by number; if the file gives the numbers itself, there may be gaps."""
    names = content.get("names")
    numbers = list(range(len(names))) if isinstance(names, list) else []
    if isinstance(names, dict):
        if not all(str(key).isdecimal() for key in names) or len(set(map(int, names))) < len(names):
            raise UserError(f"{file}: names: has keys that are not the numbers of classes. Write 0: cat and so on.")
        numbers, names = list(map(int, names)), list(names.values())
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: has no list of classes. Add a line such as names: [cat, dog]")
    if "nc" in content and content["nc"] != str(len(names)):
        raise UserError(f"{file}: says nc: {content['nc']}, but names {len(names)} classes. Correct one of them.")
    return dict(sorted(zip(numbers, names, strict=True)))


def _points(content: dict[str, Any], file: Path) -> list[int] | None:
    shape = content.get("kpt_shape")
    if shape is None or shape in NOTHING:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(str(number).isdecimal() for number in shape)):
        raise UserError(f"{file}: kpt_shape: {shape} is not [number of keypoints, 2 or 3]. Correct it.")
    return [int(number) for number in shape]


def _roots(content: dict[str, Any], file: Path) -> list[Path]:
    """Returns the folders that paths in `file` may be relative to: `path:`, if that exists, and the file's own folder.

    `path:` is relative to the file's folder or to the current folder.
    """
    path = content.get("path")
    text = "" if path is None or path in NOTHING else str(path).replace("\\", "/")
    places = [file.parent / text, Path(text), file.parent] if text else [file.parent]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _darknet(reading: Reading, file: Path) -> Layout:
    """Reads obj.data, with lines such as train = data/train.txt, and the lists of classes and images that it names."""
    lines = (line.partition("=") for line in reading.text(file).splitlines() if "=" in line)
    content = {key.strip(): value.strip() for key, _, value in lines}
    places = [file.parent]
    listed = _place(reading, content.get("names", ""), places) if content.get("names") else None
    if listed is not None and listed.is_file():
        _require_no_names(reading, listed)
        names, where = _class_lines(reading, listed), str(listed)
    else:
        names, where = _listed_classes(reading)
    sets: dict[str, dict[Path, list[Path]]] = {}
    values = {key: value for key, value in content.items() if known_set(key) and value}
    for key, value in values.items():
        images = _images(reading, value, places, file, key, is_only_set=len(values) == 1)
        for folder, paths in images.items():
            sets.setdefault(known_set(key) or "", {}).setdefault(folder, []).extend(paths)
    if not sets:
        sets, _ = _sets_by_folder(reading)
    return Layout(dict(enumerate(names)), where, sets, None, "CVAT's YOLO 1.1" if file.name == "obj.data" else "")


def _class_lines(reading: Reading, file: Path) -> list[str]:
    """Returns the lines of a list of classes. A blank line between names also counts, and is refused later."""
    return [line.strip() for line in reading.text(file).rstrip().splitlines()]


def _require_no_names(reading: Reading, file: Path) -> None:
    if reading.told.names:
        raise UserError(f"{file}: lists the classes, so --names would have no effect. Leave the flag out.")


def _listed_classes(reading: Reading) -> tuple[list[str], str]:
    """Returns the classes and where they come from: --names, or the path of a file that lists one class per line."""
    if reading.told.names:
        return list(reading.told.names), "--names"
    files = reading.files(".txt", ".names")
    lists = [path for path in files if path.name.lower() in CLASS_LISTS or path.suffix.lower() == ".names"]
    contents = {path: _class_lines(reading, path) for path in lists}
    if not contents:
        raise UserError(
            f"{reading.source}: has no data.yaml, which lists the classes and sets. {_other_folder(reading)}"
            f"{ABOUT_NAMES}; or add classes.txt with a class per line, or name the classes with --names cat dog."
        )
    if len({tuple(names) for names in contents.values()}) > 1:
        first, second = list(contents)[:2]
        raise UserError(f"{first}: lists classes that differ from {second}. Keep one, or use --names.")
    file = min(contents, key=lambda path: len(path.parts))
    return contents[file], str(file)


def _other_folder(reading: Reading) -> str:
    """Returns a sentence on a folder above or below the dataset that may list the classes; "" if there is none."""
    if above := export_above(reading.root):
        return f"If this is a part of {above}, use that folder. "
    below = reading.files(*YAMLS, ".data")
    if not below:
        return ""
    return f"There is {below[0].name} in {below[0].parent}: if it belongs to this dataset, use that folder. "


def _sets_by_folder(reading: Reading) -> tuple[dict[str, dict[Path, list[Path]]], bool]:
    """Returns each set's images, from lists such as train.txt or else by folder, and whether there are lists."""
    sets: dict[str, dict[Path, list[Path]]] = {}
    for file in _at_root(reading, ".txt"):
        if set_name := known_set(file.stem):
            images = _images(reading, file.name, [reading.root], file, file.stem, is_only_set=False)
            for folder, paths in images.items():
                sets.setdefault(set_name, {}).setdefault(folder, []).extend(paths)
    if sets:
        return sets, True
    every = reading.images()
    root = reading.told.image_path or reading.root
    in_images = [path for path in every if _is_below_images(path.relative_to(root))]
    labels = {path.with_suffix("") for path in reading.files(".txt")}
    if not in_images and not reading.told.image_path:  # there may be unrelated pictures
        folders = {path.parent for path in every if path.with_suffix("") in labels}
        in_images = [path for path in every if path.parent in folders]
    for path in in_images or every:
        parts = path.relative_to(root).parts[:-1]
        words = [re.sub(r"^obj_(\w+)_data$", r"\1", part) for part in parts]
        set_name = next((known for word in words if (known := known_set(word))), "")
        sets.setdefault(set_name, {}).setdefault(path.parent, []).append(path)
    if not sets:
        raise UserError(f"{reading.source}: has label files, but no images. Put them there, or set --image_path.")
    if len(sets) == 1:
        ((set_name, folders_of),) = sets.items()
        if not set_name and not reading.told.set:
            reading.notes.append(NO_SET)
        return {set_name or "train": folders_of}, False
    if "" in sets:
        left = [path for paths in sets.pop("").values() for path in paths]
        for path in left:
            reading.tree.leave(path, "outside the folders of the sets")
    return {name: sets[name] for name in SETS if name in sets}, False


def _is_below_images(path: Path) -> bool:
    return any(part.lower() == "images" for part in path.parts[:-1])


def _images(
    reading: Reading, value: Any, roots: Sequence[Path], file: Path, name: str, *, is_only_set: bool
) -> dict[Path, list[Path]]:
    """Returns the images of a set, grouped by the folder to which their names are relative."""
    images: dict[Path, list[Path]] = {}
    for text in value if isinstance(value, list) else [value]:
        place = _place(reading, str(text), roots)
        if reading.told.image_path and (place is None or place.is_dir()):
            place = _told_folder(reading.told.image_path, str(text), is_only_set)
        if place is None and known_set(name) == "test":
            reading.notes.append(f"{file.name} names {text} for {name}, which isn't there, so there is no set {name}")
            continue
        if place is None:
            advice = "name the folder of the images with --image_path"
            if folder := reading.told.image_path:
                advice = f"sort the images in {folder} into folders with the names of the sets"
            raise UserError(
                f"{file}: {name}: names {text}, and there is no such folder or list. Correct the path, or {advice}."
            )
        if place.is_file():
            listed = _listed(reading, place, [*roots, place.parent])
            if listed:
                images.setdefault(Path(os.path.commonpath([path.parent for path in listed])), []).extend(listed)
        else:
            listed = reading.images(place)
            images.setdefault(place, []).extend(listed)
        if not listed:
            reading.fail(f"{file}: {name}: names {text}, and no images are there. Put them there.")
    return images


def _told_folder(top: Path, text: str, is_only_set: bool) -> Path | None:
    """Returns the folder below --image_path that matches the longest possible ending of the path `text`.

    Folders in `text` that are called images are ignored. Without such a folder, returns --image_path if there is only
    one set, otherwise None.
    """
    parts = [part for part in PureWindowsPath(text).parts if part.lower() != "images"]
    places = (top.joinpath(*parts[start:]) for start in range(len(parts)))
    inside = (place for place in places if place.is_dir() and place.resolve().is_relative_to(top.resolve()))
    return next(inside, top if is_only_set else None)


def _place(reading: Reading, text: str, roots: Sequence[Path]) -> Path | None:
    """Resolves a path from a list or data.yaml; the path may have backslashes or a superfluous prefix.

    Roboflow's exports prefix paths with ../ and CVAT's with data/, even though the folders are next to the file.
    """
    path = text.replace("\\", "/")
    shorter = path
    while shorter.startswith(("../", "./")):
        shorter = shorter.partition("/")[2]
    texts = dict.fromkeys([text, path, shorter, shorter.removeprefix("data/")])
    bases = [Path(), *roots] if Path(path).is_absolute() else list(roots)
    places = [base / each for base in bases for each in texts]
    exact = next((place for place in places if place.exists()), None)
    found = exact or next((near for place in places if (near := reading.tree.find(place))), None)
    if found is None and PureWindowsPath(path).root:
        found = _of_another_machine(reading, path, roots)
    return found


def _of_another_machine(reading: Reading, path: str, roots: Sequence[Path]) -> Path | None:
    """Returns the file or folder below `roots` that matches the longest ending of `path`, a path on another machine.

    Only the first such path gets a note.
    """
    parts = PureWindowsPath(path).parts[1:]
    places = (root.joinpath(*parts[start:]) for start in range(len(parts)) for root in roots)
    found = next((place for place in places if place.exists()), None)
    if found and not any(ELSEWHERE in note for note in reading.notes):
        reading.notes.append(f"{path} {ELSEWHERE}: {found} is read instead, and likewise for other such paths")
    return found


def _listed(reading: Reading, file: Path, roots: Sequence[Path]) -> list[Path]:
    """Returns the paths of the images listed in `file`, each once and with symbolic links unresolved."""
    paths: dict[Path, None] = {}
    finder = ImageFinder(reading) if reading.told.image_path else None
    num_lines = num_bad = 0
    for number, line in enumerate(reading.text(file).splitlines(), 1):
        if text := line.strip():
            num_lines += 1
            with reading.mistakes_collected():
                where = f"{file}:{number}"
                num_bad += 1
                if finder:
                    path = finder.find(text, file, where, by_annotation=False)
                else:
                    path = _place(reading, text, [*roots, Path()])
                if path is None or not path.is_file():
                    raise reading.missing_image(text, where)
                num_bad -= 1
                flat = Path(os.path.normpath(path))  # not resolved: labels/ is looked for by the path as written
                paths[Path(os.path.abspath(flat if flat.exists() else path))] = None
    if repeated := num_lines - num_bad - len(paths):
        reading.notes.append(f"lines of {file.name} that repeat an earlier image are ignored: {repeated}")
    return list(paths)


def _with_names(reading: Reading, folders: dict[Path, list[Path]]) -> list[tuple[Path, str]]:
    """Returns each image once, with its path relative to its key in `folders` or, if any clash, to a common folder."""
    images: dict[str, tuple[Path, str]] = {}
    for folder, paths in folders.items():
        for path in paths:
            images.setdefault(os.path.abspath(path), (path, path.relative_to(folder).as_posix()))
    named = list(images.values())
    if len({name for _, name in named}) < len(named):
        top = os.path.commonpath([os.path.dirname(path) for path in images])
        named = [(path, PurePosixPath(os.path.relpath(full, top)).as_posix()) for full, (path, _) in images.items()]
    return named


def _label_places(image: Path) -> list[Path]:
    """Returns the possible label files of an image, in the order in which to look for them.

    Each path but the last replaces one of the images/ folders in the image's path with labels/, starting with the
    innermost. The last path is next to the image.
    """
    parts = list(image.parts)
    places = [number for number, part in enumerate(parts[:-1]) if part.lower() == "images"]
    paths = [Path(*parts[:place], "labels", *parts[place + 1 :]) for place in reversed(places)]
    return [path.with_suffix(".txt") for path in dict.fromkeys([*paths, image])]


def _label_files(reading: Reading, images: Sequence[Path]) -> dict[Path, Path | None]:
    """Finds each image's label file by the image's path or, failing that, by its file name; None if there is none.

    Files are found by name only with --image_path or in a Label Studio export. With --image_path, label files outside
    the dataset count only if no label file in the dataset has the name of an image.
    """
    by_name: dict[str, list[Path]] = {}
    for file in reading.files(".txt"):
        if not reading.tree.is_read(file):
            by_name.setdefault(_plain_stem(file), []).append(file)
    are_elsewhere = reading.told.image_path is not None and any(_plain_stem(image) in by_name for image in images)
    if not are_elsewhere and not (reading.root / "notes.json").exists():
        by_name = {}
    root = os.path.abspath(reading.root)
    files: dict[Path, Path | None] = {}
    owners: dict[Path, list[Path]] = {}
    for image in images:
        places = _label_places(image)
        if are_elsewhere:
            places = [place for place in places if Path(os.path.abspath(place)).is_relative_to(root)]
        found = next((found for place in places if (found := reading.tree.find(place))), None)
        candidates = [found] if found else _nearest(image, by_name.get(_plain_stem(image), []))
        with reading.mistakes_collected():
            _require_one(candidates, str(image), "its label file")
            files[image] = candidates[0] if candidates else None
            for file in candidates:
                owners.setdefault(file, []).append(image)
    for file, several in owners.items():
        # If several images lead to one file, it belongs to the images whose names match its own, including case.
        nearest = _nearest(file, several) if by_name else [path for path in several if path.stem == file.stem]
        files |= dict.fromkeys(set(several) - set(nearest or several))
        with reading.mistakes_collected():
            if len({image.parent for image in nearest}) > 1:
                files = {image: each for image, each in files.items() if image not in nearest}
                _require_one(nearest, str(file), "its image")
    return files


def _plain_stem(path: Path) -> str:
    return folded(LABEL_STUDIOS.sub("", path.stem))


def _nearest(path: Path, others: Sequence[Path]) -> list[Path]:
    """Returns those of `others` that share the longest run of innermost folders with `path`.

    If any of them have the same stem as `path`, only these are considered.
    """
    same = [other for other in others if other.stem == path.stem] or others
    shared = {other: num_shared(other.parent.parts[::-1], path.parent.parts[::-1]) for other in same}
    return [other for other in same if shared[other] == max(shared.values())]


def _require_one(candidates: Sequence[Path], where: str, what: str) -> None:
    if len(candidates) > 1:
        raise DataFault(
            "names of several images",
            f"{where}: both {candidates[0]} and {candidates[1]} may be {what}. Rename one of the two.",
        )

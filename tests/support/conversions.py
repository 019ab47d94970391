"""Writes small datasets of any format file by file, and converts them in this process."""

from pathlib import Path

from PIL import Image

from retinanet.coco.annotations import read_annotations
from retinanet.commands.convert import convert
from retinanet.settings.convert import convert_settings

WIDTH, HEIGHT = 64, 48
BOX = (12.0, 8.0, 20.0, 24.0)  # (left, top, width, height) of the object in every label below
ROW = "0 0.343750 0.416667 0.312500 0.500000\n"  # in a YOLO label file
CLASSES = "names: [cat, dog]\n"


def voc_object(name: str = "cat", extra: str = "", box: tuple[float, ...] = (13, 9, 32, 32)) -> str:
    sides = "".join(
        f"<{side}>{number}</{side}>" for side, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{sides}</bndbox></object>"


def voc_xml(file_name: str, *objects: str) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    body = "".join(objects or (voc_object(),))
    return f"<annotation>\n<filename>{file_name}</filename>\n{size}\n{body}\n</annotation>\n"


def coco_json(file_names: list[str], **more: object) -> dict:
    """Returns a COCO file's content: each image has a cat at BOX."""
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in enumerate(file_names, 1)
    ]
    annotations = [
        {"id": image["id"], "image_id": image["id"], "category_id": 1, "bbox": list(BOX), "area": 480, "iscrowd": 0}
        for image in images
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories} | more


def write(files: dict[str, str | bytes | None], folder: str | Path = ".") -> None:
    """Writes `files`: contents by path. A file whose content is None becomes an image, different from all others."""
    for number, (name, content) in enumerate(files.items()):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (WIDTH, HEIGHT), (number % 256, 128, 128)).save(
                path, format=None if path.suffix.lower() != ".jpeg" else "JPEG"
            )
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")


def converted(source: str | Path, *flags: object, output_path: str = "out") -> dict[str, dict[str, list[tuple]]]:
    """Converts `source`, and returns the rows (class, left, top, width, height, is crowd) of each image of each set."""
    settings = convert_settings([str(source), *map(str, flags), "--output_path", output_path])
    assert convert(settings) == 0
    return {path.stem: rows_of(path) for path in sorted(Path(output_path).glob("*.json"))}


def rows_of(path: Path) -> dict[str, list[tuple]]:
    annotations = read_annotations(path)
    return {
        annotations.file_name(image): [
            (
                annotations.class_names[annotations.labels[row]],
                *annotations.boxes[row].round(1).tolist(),
                bool(annotations.crowds[row]),
            )
            for row in range(annotations.first[image], annotations.first[image + 1])
        ]
        for image in range(len(annotations.image_ids))
    }


CAT = [("cat", *BOX, False)]
DOG = [("dog", *BOX, False)]

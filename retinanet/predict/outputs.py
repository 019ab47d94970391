"""Writes detections and pictures image by image, so that memory use doesn't grow with the number of images."""

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType

from PIL import Image
from torch import Tensor

from retinanet.coco.results import Found
from retinanet.predict.earlier_files import RECORD, ROWS_CSV, ROWS_JSON, move_earlier_files, record_line
from retinanet.predict.painting import painted
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.settings.predict import CROPS, PICTURES

COLUMNS = ("file_name", "frame", "class", "score", "left", "top", "width", "height")
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}  # images with other suffixes are written as .png
QUALITY = 92  # of JPEGs
NO_ROOM = "Make room, or choose another --output_path."


class Outputs:
    """Fills `folder` with predictions.json, predictions.csv and the pictures that `save` requests.

    The JSON and CSV files are complete once this context is closed. The `earlier` files of another run are moved to the
    folder `before`; all other existing files stay as they are.
    """

    def __init__(
        self,
        folder: Path,
        save: Sequence[str],
        class_names: list[str],
        category_ids: list[int],
        earlier: Sequence[Path] = (),
    ) -> None:
        self.folder, self.save, self.class_names, self.category_ids = folder, save, class_names, category_ids
        self.earlier, self.before = earlier, Path()
        self.num_images = self.num_rows = 0
        self.by_class: Counter[int] = Counter()
        self.names: set[str] = set()  # lower-case names of the pictures so far
        self.files = ExitStack()

    def __enter__(self) -> "Outputs":
        with file_error_explained(self.folder, "can't be written to", "Choose another --output_path."):
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as files:
                self.json = files.enter_context(written_whole(self.folder / ROWS_JSON))
                self.table = csv.writer(files.enter_context(written_whole(self.folder / ROWS_CSV)), lineterminator="\n")
                if self.earlier:  # only now, when the folder has proved writable
                    self.before = move_earlier_files(self.folder, self.earlier)
                self.record = files.enter_context(open(self.folder / RECORD, "w", encoding="utf-8", buffering=1))
                self.files = files.pop_all()
        self.record.writelines(record_line(self.folder / name, self.folder) for name in (ROWS_JSON, ROWS_CSV))
        self.json.write("[")
        self.table.writerow(COLUMNS)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with file_error_explained(self.folder, "can't be written to", NO_ROOM):
            if kind is None:
                self.json.write("\n]\n" if self.num_rows else "]\n")
            self.files.__exit__(kind, error, trace)

    def add(self, file_name: str, detections: Found, frame: int | None = None) -> None:
        """Writes the detections in an image, or in frame number `frame` of a video."""
        self.num_images += 1
        cell = file_name.encode(errors="backslashreplace").decode()  # the name may not be UTF-8, but the CSV must be
        rows = zip(detections.labels.tolist(), detections.boxes.tolist(), detections.scores.tolist(), strict=True)
        for label, box, score in rows:
            row = {"image_id": self.num_images, "category_id": self.category_ids[label], "bbox": box, "score": score}
            row |= {"class": self.class_names[label], "file_name": file_name}
            row |= {} if frame is None else {"frame": frame}
            number = "" if frame is None else frame
            with file_error_explained(self.folder, "can't be written to", NO_ROOM):
                self.json.write(("," if self.num_rows else "") + "\n" + json.dumps(row))
                self.table.writerow([cell, number, self.class_names[label], f"{score:.6g}", *(f"{x:.2f}" for x in box)])
            self.num_rows += 1
            self.by_class[label] += 1

    def draw(self, name: str, image: Tensor, detections: Found) -> None:
        """Writes the requested pictures of an image; `name` is the image's file name."""
        name = self._free(name)
        if PICTURES in self.save:
            self._write(painted(image, detections, self.class_names), self.folder / PICTURES / name)
        self.crop(name, image, detections)

    def crop(self, name: str, image: Tensor, detections: Found) -> None:
        """If crops are requested, writes a crop of each detection to a folder named after its class."""
        if CROPS not in self.save:
            return
        height, width = image.shape[1:]
        place = _inside(name)
        for number, (label, box) in enumerate(
            zip(detections.labels.tolist(), detections.boxes.tolist(), strict=True), 1
        ):
            left, top, wide, high = box
            x1, y1 = min(int(left), width - 1), min(int(top), height - 1)
            x2, y2 = max(x1 + 1, round(left + wide)), max(y1 + 1, round(top + high))
            part = Image.fromarray(image[:, y1:y2, x1:x2].permute(1, 2, 0).contiguous().numpy())
            folder = self.folder / CROPS / _file_name(self.class_names[label]) / place.parent
            self._write(part, folder / f"{place.stem}_{number}{place.suffix}")

    def video_path(self, name: str) -> Path:
        """Returns the path at which to write the video `name`, after creating the folders above it."""
        return self._place(self.folder / PICTURES / self._free(f"{PurePosixPath(name).with_suffix('')}.mp4", {".mp4"}))

    def _free(self, name: str, suffixes: set[str] = PICTURE_SUFFIXES) -> str:
        """Returns `name`, with .png added if its format can't be written, and a number if the name is already taken."""
        path = _inside(name)
        path = path if path.suffix.lower() in suffixes else path.with_name(f"{path.name}.png")
        free, number = path, 1
        while str(free).lower() in self.names:
            number += 1
            free = path.with_stem(f"{path.stem}_{number}")
        self.names.add(str(free).lower())
        return str(free)

    def _place(self, path: Path) -> Path:
        """Returns free_path(path), after creating the folders above it and adding it to the record."""
        with file_error_explained(path, "can't be written", NO_ROOM):
            path.parent.mkdir(parents=True, exist_ok=True)
            free = free_path(path)
            self.record.write(record_line(free, self.folder))
        return free

    def _write(self, picture: Image.Image, path: Path) -> None:
        path = self._place(path)
        with file_error_explained(path, "can't be written", NO_ROOM):
            kind = Image.registered_extensions()[path.suffix.lower()]
            with written_whole(path, "wb") as file:
                picture.save(file, kind, quality=QUALITY)


def _inside(name: str) -> PurePosixPath:
    """Returns `name` without the parts that lead out of the output folder."""
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/")))


def free_path(path: Path) -> Path:
    """Returns `path`, with a number added to the file name if `path` already exists."""
    free, number = path, 1
    while os.path.lexists(free):
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    return free


def _file_name(class_name: str) -> str:
    """Returns the class name as a folder name, with "_" in place of special characters."""
    plain = "".join(letter if letter.isalnum() or letter in " -_" else "_" for letter in class_name).strip()
    return plain[:60] or "class"

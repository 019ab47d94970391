"""Plants wrong boxes in correct sets, and counts how often pixels reveal them and how often an alarm is false.

    python -m benchmarks.checks.readings --coco_path $VOC5

The sets are photographs (--coco_path, also in grey, blurred, and as tiny parts of larger pictures), the sample data,
mosaics of four photographs, and two sets that are drawn here: cells with soft borders on a noisy background, and pages
of text with pictures and tables. Each reading, that is, each meaning of a box's four numbers, is planted twice: with
exact numbers, and as a tool would write them, rounded to whole pixels and, where that is usual, measured to the last
pixel (width - 1) instead of the edge (width). Exits with code 1 if a result is worse than required.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.accuracy import mosaics
from retinanet.check_data.box_groups import groups_of_annotations, judge_set
from retinanet.coco.annotations import Annotations, owners_of, read_annotations, subset_of
from retinanet.coco.boxes import BACK, turned_boxes, turned_sizes
from retinanet.commands.check_data import check_data
from retinanet.data.box_fit import BoxFit, BoxScores, natural
from retinanet.data.box_readings import read_boxes
from retinanet.data.box_verdict import FIT, NO_READING, OTHERWISE, Verdict, judge
from retinanet.data.edges import Edges, edges_of
from retinanet.reports.tables import aligned
from retinanet.runtime.console import run, say
from retinanet.sample_data.scenes import write_sample_data
from retinanet.settings.check_data import check_data_settings
from retinanet.settings.convert import AS_GIVEN, BOX_READINGS
from retinanet.settings.options import whole_number

MANY, FEW = 150, 60  # images of a draw
NUM_RIGHT = 20  # draws of FEW images with unchanged boxes
NUM_DEALT = 5  # how often the boxes of a draw are dealt to other images
LEAST_NAMED = 0.95
DRAWN_IMAGES = 400
TILES = 4  # photographs along each side of a picture with tiny objects
ORIENTATION_TAG = 274


class PictureSet:
    """A set that computes the edges of each picture only once."""

    def __init__(self, name: str, annotations: Annotations, pixels: Callable[[int], np.ndarray]) -> None:
        self.name, self.annotations, self.pixels = name, annotations, pixels
        self._edges: dict[int, Edges] = {}

    def edges(self, image: int) -> Edges:
        if image not in self._edges:
            self._edges[image] = edges_of(self.pixels(image))
        return self._edges[image]

    def judged(self, images: np.ndarray, annotations: Annotations) -> Verdict:
        """Judges the `annotations` of these `images`; both are in the same order."""
        return judge(self.scores(images, annotations))

    def told(self, images: np.ndarray) -> list[str]:
        """Returns the verdict on the unchanged boxes of `images`, then one on each group that differs from the rest."""
        right = subset_of(self.annotations, images)
        scores = self.scores(images, right)
        verdict = judge_set(scores, groups_of_annotations(right, scores))
        groups = [f"{group.kind} {group.name} {told_of(told)}" for group, told in verdict.groups]
        return [told_of(verdict.whole), *groups]

    def scores(self, images: np.ndarray, annotations: Annotations) -> BoxScores:
        fit = BoxFit(annotations)
        for place, image in enumerate(images.tolist()):
            if fit.is_needed(place):
                fit.add(fit.look(place, self.edges(image)))
        return fit.scores()


class Counts(NamedTuple):
    """The counts of the verdicts on planted sets."""

    missed: Counter[str]  # by what was planted and the verdict
    num_planted: int
    num_fit: int  # planted sets whose boxes were judged to fit


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--coco_path", type=Path, required=True, help="a data folder of photographs, with train and val"
    )
    parser.add_argument("--draws", type=whole_number(1), default=3, help="draws of each set")
    parser.add_argument("--only", nargs="+", help="the names of the sets to try")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        is_good = True
        for pictures in sets_of(args.coco_path, Path(folder)):
            if args.only is None or pictures.name in args.only:
                is_good &= try_set(pictures, args.draws)
        if args.only is None or "orientations" in args.only:
            is_good &= try_orientations(args.coco_path, Path(folder))
    return 0 if is_good else 1


def sets_of(coco_path: Path, folder: Path) -> Iterable[PictureSet]:
    photographs = _from_folder("photographs", coco_path)
    yield photographs
    with redirect_stdout(StringIO()):
        write_sample_data(folder / "sample", 0, {"train": DRAWN_IMAGES, "val": 1})
        classes = photographs.annotations.class_names
        mosaics.main(["--coco_path", str(coco_path), "--output_path", str(folder / "mosaics"), "--classes", *classes])
    yield _from_folder("sample data", folder / "sample")
    yield _from_folder("mosaics", folder / "mosaics")
    yield _drawn("cells", draw_cells)
    yield _drawn("pages", draw_page)
    for name, change in (
        ("grey", lambda picture: picture.convert("L").convert("RGB")),
        ("blurred", lambda picture: picture.filter(ImageFilter.GaussianBlur(4))),
    ):
        yield PictureSet(name, photographs.annotations, _changed(photographs, change))
    yield tiny(photographs)


def try_set(pictures: PictureSet, num_draws: int) -> bool:
    """Prints how often planted readings and wrongly assigned boxes are identified, and the verdicts on correct sets.

    Returns True if the results are good enough.
    """
    draw = np.random.default_rng(1)
    annotations = pictures.annotations
    shown = np.flatnonzero(np.diff(annotations.first) > 0)
    rows = [["", "planted", "named", "called fit"]]
    is_good = True
    for size in (MANY, FEW):
        readings, orders, dealt = (Counts(Counter(), 0, 0) for _ in range(3))
        for _ in range(num_draws):
            images = np.sort(draw.choice(shown, min(size, len(shown)), replace=False))
            right = subset_of(annotations, images)
            for name, boxes in planted_readings(right):
                verdict = pictures.judged(images, right._replace(boxes=boxes))
                readings = counted_in(readings, verdict, name, verdict.kind == OTHERWISE and verdict.reading == name)
            for name, wrong in planted_orders(right, draw):
                verdict = pictures.judged(images, wrong)
                orders = counted_in(orders, verdict, name, verdict.kind == NO_READING and bool(verdict.order))
            for _ in range(NUM_DEALT):
                verdict = pictures.judged(images, dealt_out(right, draw.permutation(len(images))))
                dealt = counted_in(dealt, verdict, "dealt", verdict.kind == NO_READING)
        for what, counts in (("readings", readings), ("orders", orders), ("dealt to other images", dealt)):
            num_named = counts.num_planted - counts.missed.total()
            rows.append([f"{size} images, {what}", str(counts.num_planted), str(num_named), str(counts.num_fit)])
            is_good &= not counts.num_fit
            if what != "dealt to other images" and size == MANY:
                is_good &= num_named >= LEAST_NAMED * counts.num_planted
            rows += [[f"  missed: {text}", str(number), "", ""] for text, number in counts.missed.most_common(5)]
    told: Counter[str] = Counter()
    for _ in range(NUM_RIGHT):
        images = np.sort(draw.choice(shown, min(FEW, len(shown)), replace=False))
        told.update(pictures.told(images))
    told_whole = pictures.told(shown)
    is_good &= {*told, *told_whole} <= {"fit", "untold"}
    say(f"{pictures.name}:", *(f"  {line}" for line in aligned(rows)))
    say(f"  right: {NUM_RIGHT} draws of {FEW} images {dict(told)}, all {len(shown)} images {', '.join(told_whole)}")
    return is_good


def told_of(verdict: Verdict) -> str:
    return f"{verdict.kind} {verdict.reading if verdict.kind == OTHERWISE else verdict.order}".strip()


def counted_in(counts: Counts, verdict: Verdict, name: str, is_named: bool) -> Counts:
    missed = counts.missed + Counter([] if is_named else [f"{name}, told {told_of(verdict)}"])
    return Counts(missed, counts.num_planted + 1, counts.num_fit + (verdict.kind == FIT))


def planted_readings(right: Annotations) -> Iterable[tuple[str, np.ndarray]]:
    """Yields each reading's name twice: with exact boxes in that reading, and with those that a tool would write."""
    sizes = right.sizes[owners_of(right)]
    for name in BOX_READINGS:
        if name == AS_GIVEN:
            continue
        boxes = file_boxes(name, right.boxes, sizes)
        yield name, boxes
        rounded = np.rint(boxes)
        if name in ("mirrored", "half_turn"):
            rounded[:, 0] -= 1  # the last pixel is width - 1
        elif name == "corners":
            rounded[:, 2:] -= 1
        yield name, rounded


def file_boxes(name: str, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the boxes [n, 4] that become `boxes` when they are read as `name`.

    A reading is an affine map, so five points determine it.
    """
    base = read_boxes(name, np.zeros_like(boxes), sizes)  # [n, 4]
    columns = [read_boxes(name, np.tile(unit, (len(boxes), 1)), sizes) - base for unit in np.eye(4)]
    return np.linalg.solve(np.stack(columns, axis=2), (boxes - base)[..., None])[..., 0]


def planted_orders(right: Annotations, draw: np.random.Generator) -> Iterable[tuple[str, Annotations]]:
    """Yields sets whose boxes are on wrong images: moved by one, or paired by another order of names or ids."""
    number = len(right.sizes)
    numbers = draw.permutation(number) + 1
    named = right._replace(file_names=np.array([f"{each}.jpg".encode() for each in numbers]))
    named = named._replace(image_ids=draw.permutation(number) + 1)
    names = [named.file_name(image) for image in range(number)]
    alphabetic = np.array(sorted(range(number), key=lambda image: names[image]))
    by_number = np.array(sorted(range(number), key=lambda image: natural(names[image])))
    by_id = np.argsort(named.image_ids)
    owners = np.arange(number)
    yield "one further", dealt_out(named, np.roll(owners, 1))
    yield "names in another order", dealt_out(named, places(alphabetic, by_number))
    yield "ids from 0", dealt_out(named, places(by_id, np.roll(by_id, -1)))


def places(pictures: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Returns, for each image, the image whose boxes it gets: image pictures[i] gets those of image owners[i]."""
    of_picture = np.empty_like(owners)
    of_picture[pictures] = owners
    return of_picture


def dealt_out(right: Annotations, owners: np.ndarray) -> Annotations:
    """Returns the set in which image i has the boxes of image owners[i], without scaling them."""
    parts = [np.arange(right.first[owner], right.first[owner + 1]) for owner in owners.tolist()]
    return right._replace(**of_rows(right, parts))


def of_rows(annotations: Annotations, parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns the arrays of `annotations`, rearranged so that image i has the rows parts[i]."""
    rows = np.concatenate(parts)
    first = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return {"first": first} | {
        name: getattr(annotations, name)[rows] for name in ("boxes", "labels", "crowds", "areas")
    }


def _from_folder(name: str, folder: Path) -> PictureSet:
    annotations = read_annotations(folder / "train.json")
    return PictureSet(name, annotations, lambda image: _pixels(folder / "images/train" / annotations.file_name(image)))


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _changed(pictures: PictureSet, change: Callable[[Image.Image], Image.Image]) -> Callable[[int], np.ndarray]:
    return lambda image: np.asarray(change(Image.fromarray(pictures.pixels(image))))


def made_up(
    name: str, boxes: Sequence[np.ndarray], sizes: np.ndarray, pixels: Callable[[int], np.ndarray]
) -> PictureSet:
    """Returns a one-class set in which image i has the boxes boxes[i]."""
    rows, number = np.concatenate(boxes), len(sizes)
    annotations = Annotations(
        path=Path(name),
        class_names=["object"],
        category_ids=[1],
        image_ids=np.arange(1, number + 1),
        file_names=np.array([f"{each:04d}.jpg".encode() for each in range(number)]),
        sizes=sizes,
        first=np.concatenate([[0], np.cumsum([len(each) for each in boxes])]),
        boxes=rows,
        labels=np.zeros(len(rows), np.int64),
        crowds=np.zeros(len(rows), bool),
        areas=rows[:, 2] * rows[:, 3],
    )
    return PictureSet(name, annotations, pixels)


def _drawn(name: str, drawing: Callable[[np.random.Generator], tuple[Image.Image, list[list[float]]]]) -> PictureSet:
    drawn = [drawing(np.random.default_rng(number)) for number in range(DRAWN_IMAGES)]
    sizes = np.array([[picture.height, picture.width] for picture, _ in drawn])
    boxes = [np.array(each, float).reshape(-1, 4) for _, each in drawn]
    return made_up(name, boxes, sizes, lambda image: np.asarray(drawn[image][0].convert("RGB")))


def draw_cells(draw: np.random.Generator) -> tuple[Image.Image, list[list[float]]]:
    """Draws pale cells with soft borders and darker nuclei on a noisy background. Cells may overlap."""
    width, height = 400, 300
    picture = Image.new("L", (width, height), 190)
    pencil, boxes = ImageDraw.Draw(picture), []
    for _ in range(int(draw.integers(4, 14))):
        wide, high = draw.uniform(24, 60), draw.uniform(24, 60)
        left, top = draw.uniform(0, width - wide), draw.uniform(0, height - high)
        pencil.ellipse([left, top, left + wide, top + high], fill=int(draw.integers(140, 175)))
        pencil.ellipse([left + wide / 3, top + high / 3, left + wide / 2, top + high / 2], fill=110)
        boxes.append([left, top, wide, high])
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)), float)
    noisy = blurred + draw.normal(0, 6, blurred.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), boxes


def draw_page(draw: np.random.Generator) -> tuple[Image.Image, list[list[float]]]:
    """Draws a page of text; the objects are rectangles, like pictures or tables, in place of some of its lines."""
    width, height = 360, 480
    picture = Image.new("L", (width, height), 245)
    pencil, boxes, top = ImageDraw.Draw(picture), [], 20.0
    while top < height - 80:
        high = draw.uniform(40, 110)
        left, right = sorted(draw.uniform(20, width - 20, 2))
        if draw.random() < 0.4 and right - left > 60:
            tone = int(draw.integers(90, 220))
            pencil.rectangle([left, top, right, top + high], fill=tone, outline=int(draw.integers(0, 245)))
            for _ in range(12):
                pencil.line([draw.uniform(left, right), draw.uniform(top, top + high)] * 2, fill=0, width=3)
            boxes.append([left, top, right - left, high])
        else:
            for line in np.arange(top, top + high, 9).tolist():
                for word in range(20, width - 40, 26):
                    pencil.rectangle([word, line, word + draw.uniform(8, 22), line + 4], fill=60)
        top += high + 14
    return picture, boxes


def tiny(pictures: PictureSet) -> PictureSet:
    """Returns a set of pictures, each made of TILES x TILES smaller ones, so that the objects are tiny."""
    annotations, width, height = pictures.annotations, 160, 120
    groups = np.arange(len(annotations.sizes) // TILES**2 * TILES**2).reshape(-1, TILES**2)
    groups = np.concatenate([groups, np.roll(groups, 5), np.roll(groups, 7)])  # enough images for a draw
    boxes = []
    for group in groups:
        parts = []
        for tile, image in enumerate(group.tolist()):
            scale = np.array([width, height] * 2) / annotations.sizes[image][[1, 0, 1, 0]]
            rows = slice(annotations.first[image], annotations.first[image + 1])
            parts.append(annotations.boxes[rows] * scale + [tile % TILES * width, tile // TILES * height, 0, 0])
        boxes.append(np.concatenate(parts))

    def pixels(number: int) -> np.ndarray:
        whole = Image.new("RGB", (TILES * width, TILES * height))
        for tile, image in enumerate(groups[number].tolist()):
            small = Image.fromarray(pictures.pixels(image)).resize((width, height))
            whole.paste(small, (tile % TILES * width, tile // TILES * height))
        return np.asarray(whole)

    return made_up("tiny objects", boxes, np.tile([TILES * height, TILES * width], (len(groups), 1)), pixels)


def try_orientations(coco_path: Path, folder: Path) -> bool:
    """Checks photographs, half of them with an EXIF orientation; returns True if every report is as expected.

    The boxes of that half refer to the stored pixels. With orientation 3, check_data must report that half and advise
    --exif raw. With --exif raw, or with orientation 6, where the annotated size shows that the boxes refer to the
    stored pixels, it must report nothing.
    """
    is_good = True
    for orientation, expected in ((3, "EXIF orientation 3: fit as half turn"), (6, "")):
        place = folder / f"orientation{orientation}"
        write_stored(coco_path, place, orientation)
        for flags in ((), ("--exif", "raw")):
            arguments = ["--coco_path", str(place), "--sets", "train", "--picture_path", str(place / "check.png")]
            with redirect_stdout(StringIO()) as out:
                check_data(check_data_settings([*arguments, *flags]))
            lines = [line.strip() for line in out.getvalue().splitlines() if "boxes_read" in line or "fit as" in line]
            wanted = expected if not flags else ""
            is_right = any(wanted in line and "--exif raw" in line for line in lines) if wanted else not lines
            say(f"orientation {orientation} {' '.join(flags)}: {'as it should be' if is_right else lines}")
            is_good &= is_right
    return is_good


def write_stored(coco_path: Path, folder: Path, orientation: int) -> None:
    """Writes MANY photographs. Every other one is stored rotated; its boxes and size refer to the stored pixels."""
    annotations = read_annotations(coco_path / "train.json")
    (folder / "images" / "train").mkdir(parents=True)
    images, entries = [], []
    for image in range(min(MANY, len(annotations.sizes))):
        turn = orientation if image % 2 else 1
        name, rows = annotations.file_name(image), np.arange(annotations.first[image], annotations.first[image + 1])
        size = annotations.sizes[[image]]
        back = np.full(len(rows), BACK[turn])
        boxes = turned_boxes(annotations.boxes[rows], back, np.repeat(size, len(rows), axis=0))
        height, width = turned_sizes(size, np.array([turn]))[0].tolist()
        with Image.open(coco_path / "images" / "train" / name) as picture:
            method = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[turn]
            exif = Image.Exif()
            exif[ORIENTATION_TAG] = turn
            stored = picture.transpose(method) if method is not None else picture
            stored.save(folder / "images" / "train" / name, quality=90, exif=exif)
        images.append({"id": image + 1, "file_name": name, "height": height, "width": width})
        for row, box in zip(rows.tolist(), boxes.tolist(), strict=True):
            entry = {"id": row + 1, "image_id": image + 1, "category_id": 1, "iscrowd": int(annotations.crowds[row])}
            entries.append({**entry, "bbox": box})
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
    (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    run(main)

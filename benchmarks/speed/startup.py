"""Measures startup on a big dataset: the time and memory of the first and of later starts, and the workers' memory.

    python -m benchmarks.speed.startup --folder big_data

The dataset is generated (1,000,000 images, 7,000,000 boxes; about 960 MB of JSON). Its image files are hard links to a
few JPEGs; a start reads their headers, as it would with a real set. The workers read all annotations of an epoch, in
the sampler's order, and decode nothing. Each start runs in a separate process. A worker's memory is the part that it
doesn't share with the parent (USS).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmarks.arguments import device_of
from benchmarks.speed.protocol import describe
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.sampler import AspectRatioBasedSampler, Draw, Shown
from retinanet.reports.tables import markdown_head
from retinanet.settings.options import whole_number
from retinanet.settings.shared import MAX_PIXELS

OBJECTS = 7
SIZES = ((480, 640), (640, 480), (427, 640), (375, 500))
LINKS = 60_000  # to each file; ext4 allows 65,000


def generate(folder: Path, num_images: int) -> None:
    """Writes a dataset with 80 classes; its annotation file is written entry by entry."""
    images = folder / "images" / "train"
    images.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    with open(folder / "train.json", "w") as file:
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
        file.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        for image in range(num_images):
            height, width = draw.choice(SIZES).tolist()
            entry = {"id": image, "file_name": f"{image:012d}.jpg", "height": height, "width": width}
            picture = folder / f"{height}x{width}_{image // LINKS}.jpg"
            if not picture.exists():
                Image.effect_noise((width, height), 50).convert("RGB").save(picture)
            os.link(picture, images / entry["file_name"])
            file.write((", " if image else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for image in range(num_images):
            boxes = draw.uniform([0, 0, 8, 8], [300, 200, 180, 180], (OBJECTS, 4)).round(2).tolist()
            labels = draw.integers(1, 81, OBJECTS).tolist()
            for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                entry = {"id": image * OBJECTS + number, "image_id": image, "category_id": label, "bbox": box}
                entry |= {"area": round(box[2] * box[3], 2), "iscrowd": 0}
                file.write((", " if image or number else "") + json.dumps(entry))
        file.write("]}")


def memory(what: str) -> float:
    """Returns the memory of this process in MB: all of it (Rss), or the part that isn't shared (Private)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


class AnnotationsOnly(Dataset[list[tuple[int, float]]]):
    """Reads a batch's objects as training does; for each image, returns the worker's id and its private memory.

    The memory is measured at every 20,000th image of the dataset, and is 0 for the others.
    """

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, draw: Draw) -> list[tuple[int, float]]:
        return [self._look(index) for index in draw.indices]

    def _look(self, index: int) -> tuple[int, float]:
        self.dataset.path(index)
        self.dataset.objects(index)
        worker = get_worker_info()
        assert worker is not None
        return worker.id, memory("Private") if index % 20000 == 0 else 0.0


def start(args: argparse.Namespace) -> None:
    before = memory("Rss")
    started = time.perf_counter()
    dataset = load_set(args.folder, "train", min_side=608, max_side=1024, max_pixels=MAX_PIXELS)[1]
    sampler = AspectRatioBasedSampler(Shown(dataset.sizes), 2, seed=0)
    next(iter(sampler))
    seconds, added = time.perf_counter() - started, memory("Rss") - before
    print(json.dumps({"seconds": seconds, "parent": added}), flush=True)
    if args.workers:
        batches = AnnotationsOnly(dataset)
        loader = DataLoader(batches, sampler=sampler, batch_size=None, num_workers=args.workers, collate_fn=list)
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for worker, held in (pair for batch in loader for pair in batch):
            if held:
                first.setdefault(worker, held)
                last[worker] = held
        grown = max(last[worker] - first[worker] for worker in last)
        print(json.dumps({"worker": max(last.values()), "grown": grown, "parent": memory("Rss")}), flush=True)


def measured(args: argparse.Namespace, workers: int) -> Iterator[dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.speed.startup", "--folder", str(args.folder), "--start"]
    command += ["--workers", str(workers)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(args.folder)}
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    return (json.loads(line) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the generated dataset goes, 2 GB")
    parser.add_argument("--num_images", type=whole_number(1), default=1_000_000)
    parser.add_argument("--workers", type=whole_number(0), default=4)
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        start(args)
        return
    path = args.folder / "train.json"
    if not path.exists():
        generate(args.folder, args.num_images)
    for cache in args.folder.glob("retinanet/*.npz"):
        cache.unlink()
    print(f"{args.num_images} images, {args.num_images * OBJECTS} boxes, {path.stat().st_size / 1e6:.0f} MB of JSON\n")
    print(markdown_head("start", "seconds", "MB added to the parent"))
    for name in ("first", "next", "next"):
        (result,) = measured(args, 0)
        print(f"| {name} | {result['seconds']:.2f} | {result['parent']:.0f} |", flush=True)
    _, result = measured(args, args.workers)
    share = result["grown"] / result["parent"]
    print(
        f"\n{args.workers} workers, an epoch of annotations: each grew by at most {result['grown']:.0f} MB, "
        f"{share:.1%} of the parent's {result['parent']:.0f} MB, to {result['worker']:.0f} MB of its own."
    )
    print(describe(device_of("cpu")))


if __name__ == "__main__":
    main()

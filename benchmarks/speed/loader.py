"""Measures how fast a worker loads photographs, compared with a scikit-image pipeline like older RetinaNet code's.

    python -m benchmarks.speed.loader --coco_path $VOC5 --set_name train

The scikit-image pipeline reads images, converts them to float32, normalises them, resizes them with
skimage.transform.resize, and pads them. Each pipeline runs in this process, with one thread, like a worker.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import io, transform
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.speed.protocol import describe, time_in_turn
from retinanet.data.batches import collate
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.transforms import padded_sizes, resize
from retinanet.detector.structures import DEVIATION, MEAN
from retinanet.reports.tables import markdown_head
from retinanet.runtime.console import run
from retinanet.settings.options import whole_number
from retinanet.settings.shared import MAX_PIXELS, MAX_SIDE, MIN_SIDE


def classic(dataset: CocoDataset, index: int) -> np.ndarray:
    """Returns the image as the scikit-image pipeline does: float32 [H, W, 3], normalised, resized and padded."""
    image = io.imread(dataset.path(index)).astype(np.float32) / 255
    image = (image - np.array(MEAN, np.float32) / 255) / (np.array(DEVIATION, np.float32) / 255)
    height, width = dataset.sizes[index]
    resized = transform.resize(image, (height, width))
    padded = np.zeros((*padded_sizes(dataset.sizes[index]), 3), np.float32)
    padded[:height, :width] = resized
    return padded


def ours(dataset: CocoDataset, index: int) -> torch.Tensor:
    return collate([dataset.read(index)]).images


def decode_and_resize(dataset: CocoDataset, index: int) -> torch.Tensor:
    """Does only the work that no loader can avoid."""
    return resize(pil_to_tensor(Image.open(dataset.path(index)).convert("RGB")), dataset.sizes[index].tolist())


def decode(dataset: CocoDataset, index: int) -> np.ndarray:
    with Image.open(dataset.path(index)) as picture:
        return np.asarray(picture.convert("RGB"))


ALONE = (("decoding and resizing alone", decode_and_resize), ("decoding alone", decode))


def difference(dataset: CocoDataset, indices: list[int]) -> float:
    """Returns the mean absolute difference between the images of the two pipelines, on a scale of 0 to 255."""
    differences = []
    for index in indices:
        height, width = dataset.sizes[index]
        theirs = classic(dataset, index)[:height, :width] * np.array(DEVIATION) + np.array(MEAN)
        differences.append(np.abs(theirs - ours(dataset, index)[0, :, :height, :width].permute(1, 2, 0).numpy()).mean())
    return float(np.mean(differences))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True)
    parser.add_argument("--set_name", default="train")
    parser.add_argument("--min_side", type=whole_number(32), default=MIN_SIDE)
    parser.add_argument("--max_side", type=whole_number(32), default=MAX_SIDE)
    parser.add_argument("--num_images", type=whole_number(1), default=32, help="images per window")
    parser.add_argument("--repeats", type=whole_number(1), default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    _, dataset = load_set(
        args.coco_path, args.set_name, min_side=args.min_side, max_side=args.max_side, max_pixels=MAX_PIXELS
    )
    indices = np.random.default_rng(0).permutation(len(dataset))[: args.num_images].tolist()
    works = {
        name: lambda load=load: [load(dataset, index) for index in indices]
        for name, load in (("scikit-image", classic), ("ours", ours), *ALONE)
    }
    started = time.perf_counter()
    timings = time_in_turn(works, torch.device("cpu"), warm_up=1, repeats=args.repeats)
    print(f"{len(indices)} photographs of {args.coco_path.name} to {args.min_side}/{args.max_side} px, one thread\n")
    print(markdown_head("pipeline", "images/s", "times scikit-image"))
    for name, timing in timings.items():
        ratio = timings["scikit-image"].median / timing.median
        print(f"| {name} | {timing.rate(len(indices))} | {ratio:.1f} |")
    print(f"\nMean difference of ours from scikit-image: {difference(dataset, indices[:8]):.2f} of 255.")
    print(f"Median of {args.repeats} (slowest to fastest), {time.perf_counter() - started:.0f} s. ", end="")
    print(describe(torch.device("cpu")))
    return 0


if __name__ == "__main__":
    run(main)

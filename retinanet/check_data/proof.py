"""Trains a small detector briefly on a part of the training set, and measures what it has learned.

A network has learned to find objects if detections that overlap them score higher than detections at the same places in
other images. This can be measured after minutes, long before AP is worth reading.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.checkpoints.start import with_saved_network
from retinanet.coco.annotations import Annotations, owners_of, subset_of
from retinanet.coco.results import Found
from retinanet.data.box_verdict import z_of
from retinanet.data.dataset import CocoDataset
from retinanet.data.image_cache import ImageCache
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import DEVIATION, MEAN
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.detect_set import detect_all
from retinanet.evaluation.matches import box_ious
from retinanet.runtime.device import find_device
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import Ranks
from retinanet.settings.check_data import PROOF_DEPTH
from retinanet.settings.options import Given, with_values
from retinanet.settings.train import STRONG, TrainSettings, settled
from retinanet.training.build import Run, build_run, loader_settings
from retinanet.training.engine import rest_of_epoch
from retinanet.training.sets import Sets

NUM_STEPS, BATCH_SIZE = 440, 8
DOUBLING = 80  # this many classes double the time of a step
MOST_COST = 1.25  # if a step costs more than this many steps with one class, there are fewer steps
CHANNELS, SIDES = 64, (128, 224)
RATE, RATE_FROM_SCRATCH = 2e-4, 1e-3
MOST_TRAINED, MOST_MEASURED = 256, 96  # images of each part
LEFT_OUT = 0.25  # the fraction of the images that isn't trained on, if there are too few for both numbers
FEWEST_IMAGES = 4
NUM_OTHERS = 5  # other images that each object's box is compared with
FOUND_IOU = 0.5
LOWEST_SCORE = 0.01  # of the detections: after so few steps, scores are low


class Part(NamedTuple):
    """The network's results on images of a set, for the n objects in them and the C classes of the set."""

    dataset: CocoDataset
    found: Found
    images: np.ndarray  # int64 [n]
    labels: np.ndarray  # int64 [n]
    own: np.ndarray  # float64 [n, C], each class's highest score at the object
    others: np.ndarray  # float64 [n, C], the same at its place in other images, on average
    ap: float
    ap50: float


class Proof(NamedTuple):
    """The results on images that the network was trained on, on unseen images of the same set, and on val, if any."""

    trained: Part
    left_out: Part
    val: Part | None
    num_trained: int
    pixel_mean: float  # of the network's input; 0 for images like ImageNet's
    pixel_deviation: float  # 1 for images like ImageNet's


class Trained(NamedTuple):
    """The network of a proof, and the images of the training set that it is measured on."""

    run: Run
    trained: CocoDataset
    left_out: CocoDataset
    num_trained: int
    pixel_mean: float
    pixel_deviation: float


def train_small(train: CocoDataset, weights: str, seed: int) -> Trained:
    """Trains a small detector on images of `train`, for about num_steps * BATCH_SIZE samples in all.

    Raises UserError if there are too few images, or if the weights can't be loaded.
    """
    images = np.random.default_rng(seed).permutation(_with_objects(train))
    if len(images) < FEWEST_IMAGES:
        raise UserError(
            f"{train.annotations.path}: a proof needs at least {FEWEST_IMAGES} images with objects, and there are "
            f"{len(images)}. Annotate more."
        )
    num_left = min(MOST_MEASURED, max(1, int(LEFT_OUT * len(images))))
    left, trained = images[:num_left], images[num_left:][:MOST_TRAINED]
    training_set, left_out = _part_of(train, trained), _part_of(train, left)
    training_set.cache = ImageCache(training_set.sizes, budget=2**30)
    settings = _settings(training_set, weights, seed)
    sets = Sets(training_set.annotations, left_out.annotations, training_set, left_out)
    run = build_run(settings, Ranks(), sets)
    for _ in range(settings.optimisation.epochs):
        for _ in rest_of_epoch(run):
            pass
        run.state.finish_epoch(0.0)
    measured = _part_of(train, trained[:MOST_MEASURED])
    return Trained(run, measured, left_out, len(trained), *_pixels(training_set))


def measure(network: Trained, val: CocoDataset | None) -> Proof:
    """Measures the network on images that it was trained on, on unseen images of the same set, and on some of `val`."""
    datasets = [network.trained, network.left_out]
    if val:
        drawn = np.random.default_rng(network.run.settings.optimisation.run_seed)
        datasets.append(_part_of(val, drawn.permutation(_with_objects(val))[:MOST_MEASURED]))
    assert network.run.state.average
    with network.run.state.average.in_place():
        parts = [_measured(network.run, dataset) for dataset in datasets]
    of_val = parts[2] if val else None
    return Proof(parts[0], parts[1], of_val, network.num_trained, network.pixel_mean, network.pixel_deviation)


def _with_objects(dataset: CocoDataset) -> np.ndarray:
    """Returns the indices of the images with an object to learn, in ascending order."""
    return np.unique(owners_of(dataset.annotations)[dataset.is_learned])


def _part_of(dataset: CocoDataset, images: np.ndarray) -> CocoDataset:
    """Returns the dataset with only the `images`, at the proof's size."""
    return CocoDataset(
        subset_of(dataset.annotations, np.sort(images)),
        dataset.image_folder,
        *SIDES,
        dataset.max_pixels,
        exif=dataset.exif,
        white_level=dataset.white_level,
    )


def num_steps(num_classes: int) -> int:
    """Returns the number of training steps, fewer with many classes, so that all proofs take about the same time."""
    return round(NUM_STEPS * min(1.0, MOST_COST / (1 + num_classes / DOUBLING)))


def _settings(training_set: CocoDataset, weights: str, seed: int) -> TrainSettings:
    num_classes = len(training_set.annotations.class_names)
    values = {
        "recipe": STRONG,
        "coco_path": Path(training_set.annotations.path.parent),
        "weights": weights,
        "depth": PROOF_DEPTH,
        "channels": CHANNELS,
        "iou_branch": False,
        "min_side": SIDES[0],
        "max_side": SIDES[1],
        "batch_size": min(BATCH_SIZE, len(training_set)),
        "epochs": max(1, round(num_steps(num_classes) * BATCH_SIZE / len(training_set))),
        "learning_rate": RATE_FROM_SCRATCH if weights == "none" else RATE,
        "train_sides": None,
        "seed": seed,
        "device": str(find_device("auto")),
        "workers": 0,
    }
    chosen = frozenset(values.keys() - {"depth", "channels", "iou_branch"})  # a checkpoint has its own network
    settings = settled(with_values(TrainSettings(), values), Given(chosen, chosen))
    return with_saved_network(with_values(settings, {"iou_branch": False}), None)


def _measured(run: Run, dataset: CocoDataset) -> Part:
    """Runs the network on the images of `dataset`, and compares its detections with the annotated objects."""
    annotations = dataset.annotations
    found = detect_all(
        run.state.network,
        dataset,
        loader_settings(run.settings, run.device),
        device=run.device,
        detection=DetectionSettings(threshold=LOWEST_SCORE),
    )
    rows = np.flatnonzero(dataset.is_learned)
    images = owners_of(annotations)[rows]
    own, others = scores_at(annotations, found, rows, images)
    analysis = analyse(annotations, found, num_draws=0)
    ap, ap50 = float(analysis.ap.value), float(analysis.ap50.value)
    return Part(dataset, found, images, annotations.labels[rows], own, others, ap, ap50)


def scores_at(
    annotations: Annotations, found: Found, rows: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns Part's `own` and `others` for some objects of a set.

    `rows` [n] are the objects' indices in the annotations, and `images` [n] are the indices of their images.
    """
    num_images, shape = len(annotations.image_ids), (len(rows), len(annotations.class_names))
    own, others = np.zeros(shape), np.zeros(shape)
    frames = annotations.sizes[:, [1, 0, 1, 0]].astype(float)
    steps = range(1, min(NUM_OTHERS, num_images - 1) + 1)
    by_image = [found.at(found.images == image) for image in range(num_images)]
    for image in np.unique(images).tolist():
        of_image = images == image
        boxes = annotations.boxes[rows[of_image]]
        own[of_image] = _best_scores(boxes, by_image[image], shape[1])
        for step in steps:
            other = (image + step) % num_images
            placed = boxes / frames[image] * frames[other]
            others[of_image] += _best_scores(placed, by_image[other], shape[1]) / len(steps)
    return own, others


def _best_scores(boxes: np.ndarray, found: Found, num_classes: int) -> np.ndarray:
    """Returns each class's highest score among the detections that overlap each of `boxes`, or 0 if none do: [n, C]."""
    best = np.zeros((num_classes, len(boxes)))
    ious = box_ious(boxes[None], found.boxes[None], np.zeros((1, len(found.boxes)), bool))[0]  # [n, detections]
    np.maximum.at(best, found.labels, np.where(ious >= FOUND_IOU, found.scores, 0).T)
    return best.T


def z_found(part: Part) -> float:
    """Returns z, the mean of gains_of divided by its standard error."""
    return _z(gains_of(part), part.images)


def gains_of(part: Part) -> np.ndarray:
    """Returns each object's score for its class minus the class's mean score at the same place in other images: [n]."""
    return (part.own - part.others)[np.arange(len(part.labels)), part.labels]


def z_found_as_any(part: Part) -> float:
    """Returns z as z_found does, but takes the highest score of any class, not the score of the object's own class."""
    return _z(part.own.max(axis=1) - part.others.max(axis=1), part.images)


def z_classes(part: Part) -> float:
    """Returns z for each object's score for its own class minus its average score over all classes.

    The average is weighted by the frequency of the classes among the objects.
    """
    frequencies = np.bincount(part.labels, minlength=part.own.shape[1]) / max(1, len(part.labels))
    return _z(part.own[np.arange(len(part.labels)), part.labels] - part.own @ frequencies, part.images)


def _z(differences: np.ndarray, images: np.ndarray) -> float:
    return float(z_of(differences[:, None], images)[0][0]) if len(images) else 0.0


def _pixels(dataset: CocoDataset) -> tuple[float, float]:
    """Returns the mean and the standard deviation of the normalised pixels of some images."""
    step = max(1, len(dataset) // MOST_MEASURED)
    pixels = np.concatenate([dataset.read(index).image.flatten(1).numpy() for index in range(0, len(dataset), step)], 1)
    normalised = (pixels.T - np.array(MEAN)) / np.array(DEVIATION)
    return float(normalised.mean()), float(normalised.std())

"""Loads the two sets of a run, and checks them before the run starts."""

from functools import partial
from typing import NamedTuple

from retinanet.coco.annotations import Annotations, has_objects, require_same_classes
from retinanet.data.dataloader import shown_of
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.image_cache import ImageCache, spare_memory
from retinanet.data.learnable import require_objects, require_reach
from retinanet.data.sampler import Shown
from retinanet.evaluation.coco_table import require_backend
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import Ranks, num_local_ranks
from retinanet.settings.shared import FROM_ORIGINAL, ZOOM_OUT
from retinanet.settings.train import TrainSettings


class Sets(NamedTuple):
    train: Annotations
    val: Annotations
    training_set: CocoDataset
    val_set: CocoDataset


def load_sets(settings: TrainSettings, ranks: Ranks) -> Sets:
    """Loads both sets. Raises UserError if they don't suit training, the settings or each other."""
    load = partial(
        load_set,
        settings.data.coco_path,
        min_side=settings.data.min_side,
        max_side=settings.data.max_side,
        max_pixels=settings.machine.max_pixels,
        exif=settings.data.exif,
        white_level=settings.data.white_level,
    )
    train, training_set = load(
        settings.data.train_set,
        require_images=settings.data.bad_images == "stop",
        keep_crowds=settings.loss.ignore_crowds,
        min_visible=settings.data.tiling.least_visible,
    )
    val, val_set = load(settings.data.val_set)
    if has_objects(val) and not settings.instead_of_training:
        require_backend(settings.eval_backend)
    require_same_classes(val, train.class_names, train.category_ids, train.path)
    _require_steps(settings, training_set, ranks)
    return Sets(train, val, training_set, val_set)


def require_learnable(settings: TrainSettings, training_set: CocoDataset) -> None:
    """Raises UserError if no step would have an object to learn from."""
    require_objects(training_set)
    augmentation = settings.data.augmentation
    # Objects that are resized at random may be matched after all, and other matchers match more.
    if settings.loss.matcher == "iou" and not {*FROM_ORIGINAL, ZOOM_OUT} & {*(augmentation.augment or ())}:
        require_reach(
            training_set,
            settings.loss.foreground_iou,
            augmentation.train_sides or (),
            flip=augmentation.flip > 0,
            shapes=settings.network.anchors.shapes,
            tiling=settings.data.tiling,
        )


def _require_steps(settings: TrainSettings, training_set: CocoDataset, ranks: Ranks) -> None:
    """Raises UserError if the run would have no steps, none after its warm-up, or too few images for --accumulate."""
    path, optimisation, drop_last = training_set.annotations.path, settings.optimisation, settings.data.drop_last
    # Any seed will do (the run's may not be drawn yet): it changes the number of tiles only a little.
    shown = shown_of(training_set, 0, settings.data.repeat_threshold, settings.data.tiling.tiles)
    num_images = (shown if isinstance(shown, Shown) else shown(0)).num_drawn
    if optimisation.accumulate > num_images:
        raise UserError(
            f"{path}: --accumulate {optimisation.accumulate} needs more batches per step than an epoch's "
            f"{counted(num_images, 'image')} can fill. Lower it."
        )
    batch_size = max(1, settings.data.batch_size)  # 1 if the size is still to be found
    together = batch_size * optimisation.accumulate * ranks.size
    if drop_last and num_images < together:
        raise UserError(
            f"{path}: an epoch's {counted(num_images, 'image')} can't fill one batch of {together}, so --drop_last "
            "would leave out all. Lower --batch_size, or remove --drop_last."
        )
    num_full, rest = divmod(num_images, together)
    num_steps = optimisation.epochs * (num_full + (rest > 0 and not drop_last))
    if optimisation.warmup_steps >= num_steps and not optimisation.find_lr:
        raise UserError(
            f"{path}: a run of {counted(optimisation.epochs, 'epoch')} of {counted(num_images, 'image')} has "
            f"{counted(num_steps, 'step')}, all of which --warmup_steps {optimisation.warmup_steps} would take. Lower "
            "it, or raise --epochs."
        )


def add_cache(training_set: CocoDataset, ranks: Ranks) -> None:
    """Gives each rank an equal share of its machine's spare memory to cache images in."""
    num_sharing = num_local_ranks(ranks)
    budget = spare_memory() // num_sharing
    ranks.wait()  # until all ranks have measured, because memory that a rank takes is no longer free
    is_tiled = training_set.min_visible is not None
    sizes = training_set.annotations.sizes if is_tiled else training_set.sizes
    training_set.cache = cache = ImageCache(sizes, budget)
    each = f" in each of {num_sharing} processes" if num_sharing > 1 else ""
    room = f"room for {cache.num_images} of {counted(len(training_set), 'image')}"
    say(f"Image cache: {room}, {cache.num_bytes / 1e9:.2f} GB{each}")

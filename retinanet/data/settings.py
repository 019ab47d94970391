"""What can be chosen about images and batches, with the published runs' numbers as defaults. Needs no PyTorch."""

from dataclasses import dataclass

MIN_SIDE = 608
MAX_SIDE = 1024
MOST_MIN_SIDE = 2**13  # larger images fill a GPU's memory one by one
MAX_PIXELS = 89_000_000  # an RGB image of this many is 267 MB
PHOTOMETRIC, CROP, ZOOM_OUT, JITTER = AUGMENTATIONS = ("photometric", "crop", "zoom_out", "jitter")
FROM_ORIGINAL = frozenset((CROP, JITTER))  # they enlarge parts, and need the pixels that a resized image has lost


@dataclass(frozen=True)
class AugmentSettings:
    """What the images of a training undergo."""

    flip: float = 0.5  # probability of being mirrored
    names: tuple[str, ...] = ()  # of AUGMENTATIONS
    sides: tuple[int, ...] = ()  # shorter sides, one drawn for each batch; without any, all have the data set's
    repeat_threshold: float = 0.0  # share of the images below which a class is rare: see repeat_factors


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are loaded."""

    batch_size: int
    workers: int = 0
    pin_memory: bool = False
    timeout: float = 0  # seconds that a worker may take for a batch; 0: any time
    padded_sides: tuple[int, ...] | None = None  # of training batches, see padded_shape; None: multiples of 32


DEFAULT_AUGMENT = AugmentSettings()

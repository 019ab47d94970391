"""Finds the batch size for --batch_size auto: the largest that trains in 80% of the GPU's free memory."""

from collections.abc import Callable

import numpy as np
import torch

from retinanet.checkpoints.resume import SavedRun
from retinanet.data.batches import Batch
from retinanet.data.device_feed import in_steps, on_device
from retinanet.data.tiles import sizes_of_epoch
from retinanet.data.transforms import longest_at, padded_sizes, resized_sizes
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Targets
from retinanet.runtime.console import say
from retinanet.runtime.device import choose_precision
from retinanet.runtime.errors import OutOfResources, UserError
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.settings.options import with_values
from retinanet.settings.train import AUTO_BATCH, TrainSettings
from retinanet.training.build import batches_of_run, losses_in, start_state
from retinanet.training.compilation import why_not_compiled
from retinanet.training.engine import train_steps
from retinanet.training.sets import Sets

SHARE = 0.8  # fraction of the free memory to use: shapes vary, memory fragments, and other processes may need some
STEPS = 2  # the second step shows the peak: in the first, the optimiser's moments don't exist yet
MOST = 512


def settled_batch_size(settings: TrainSettings, ranks: Ranks, sets: Sets, saved: SavedRun | None) -> int:
    """Returns the batch size; auto becomes the saved run's or, without a saved run, the size that rank 0 finds.

    Raises UserError if the size would have to be found on a CPU.
    """
    if settings.data.batch_size != AUTO_BATCH:
        return settings.data.batch_size
    if saved is not None:
        say(f"--batch_size auto: resuming with the saved run's {saved.facts.batch_size}")
        return saved.facts.batch_size
    device = torch.device(settings.machine.device)
    if device.type != "cuda":
        raise UserError("--batch_size auto needs a GPU. Set a number")
    return ranks.from_first(lambda: find_batch_size(settings, sets, device, ranks))


def find_batch_size(settings: TrainSettings, sets: Sets, device: torch.device, ranks: Ranks) -> int:
    """Returns the batch size, found by training on batches of several sizes with images of the largest shape.

    Compiling takes a minute per size, so the search runs uncompiled. If the run will be compiled, the result is then
    lowered until compiled steps fit too. Raises UserError if not even one image fits.
    """
    limit = int(SHARE * torch.cuda.mem_get_info(device)[0])

    def peak(size: int, *, compiled: bool = False) -> int | None:
        return peak_of(with_values(settings, {"batch_size": size}), sets, device, ranks, compiled=compiled)

    size, most = largest_that_fits(peak, limit)
    while size and will_compile(with_values(settings, {"batch_size": size}), sets, device, ranks):
        of_compiled = peak(size, compiled=True)
        if of_compiled is not None and of_compiled <= limit:
            most = of_compiled
            break
        size -= -(-size // 10)
    height, width = largest_shape(settings, sets, max(1, size))
    if not size:
        raise UserError(
            f"--batch_size auto: an image of {height} x {width} needs more than {SHARE:.0%} of the free memory of "
            f"{device}. Lower --min_side and --max_side, or set --batch_size 1"
        )
    say(
        f"--batch_size auto: {size}, whose steps take {most / 1e9:.2f} GB at the largest shape, {height} x {width}; "
        f"{limit / 1e9:.2f} GB is {SHARE:.0%} of the free memory"
    )
    return size


def will_compile(settings: TrainSettings, sets: Sets, device: torch.device, ranks: Ranks) -> bool:
    """Returns True if this rank would compile the run. Other ranks aren't asked: they don't take part in the search."""
    batches = batches_of_run(settings, sets, ranks)
    return why_not_compiled(settings.speed.compile, device, ALONE, batches) is None


def largest_that_fits(peak_of: Callable[[int], int | None], limit: int) -> tuple[int, int]:
    """Returns the largest batch size whose memory peak is within `limit`, and that peak; 0 and 0 if no size fits.

    `peak_of` maps a size to bytes, or to None if memory runs out. Doubling finds a size that doesn't fit, and bisection
    then narrows the range.
    """
    best, best_peak, least_failed, size = 0, 0, MOST + 1, 1
    while size < least_failed:
        peak = peak_of(size)
        if peak is not None and peak <= limit:
            best, best_peak = size, peak
        else:
            least_failed = size
        size = min(2 * best, MOST) if least_failed > MOST and best < MOST else (best + least_failed) // 2
        if size == best:
            break
    return best, best_peak


def largest_shape(settings: TrainSettings, sets: Sets, batch_size: int) -> tuple[int, int]:
    """Returns the padded height and width of the run's largest batch when images are batched by aspect ratio."""
    side = max(settings.data.augmentation.train_sides or (settings.data.min_side,))
    originals = sizes_of_epoch(sets.training_set, settings.data.tiling.tiles, settings.data.tiling.min_visible)
    sizes = resized_sizes(originals, side, longest_at(side, settings.data.min_side, settings.data.max_side))
    ordered = sizes[np.argsort(originals[:, 1] / originals[:, 0], kind="stable")]
    windows = np.lib.stride_tricks.sliding_window_view(ordered, min(batch_size, len(ordered)), axis=0)
    shapes = padded_sizes(windows.max(axis=2))  # [windows, 2]
    height, width = shapes[shapes.prod(axis=1).argmax()].tolist()
    return height, width


def peak_of(
    settings: TrainSettings, sets: Sets, device: torch.device, ranks: Ranks, *, compiled: bool = False
) -> int | None:
    """Returns the peak memory, in bytes, of training steps with random weights; None if memory runs out."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _train(settings, sets, device, ranks, compiled)
        return torch.cuda.max_memory_reserved(device)
    except OutOfResources:
        return None
    finally:
        if compiled:
            torch.compiler.reset()  # or the memory of CUDA graphs would not be freed
        torch.cuda.empty_cache()


def _train(settings: TrainSettings, sets: Sets, device: torch.device, ranks: Ranks, compiled: bool) -> None:
    """Trains as the run will, with its losses, weight average, accumulation and precision."""
    start, num_classes = settings.network, len(sets.val.class_names)
    network = RetinaNet(start.architecture, num_classes, learn_statistics=start.norm_statistics == "learned")
    network.backbone.freeze(start.freeze_stages)
    precision = choose_precision(settings.machine.precision, device)
    num_steps = batches_of_run(settings, sets, ranks)
    state = start_state(settings, network, device, precision, (), num_steps)
    losses = losses_in(settings, state, num_classes, precision, ranks, compiled=compiled)
    batch = _batch(sets, settings.data.batch_size, largest_shape(settings, sets, settings.data.batch_size))
    accumulate = settings.optimisation.accumulate
    steps = in_steps(on_device([batch] * STEPS * accumulate, device), accumulate)
    for _ in train_steps(state, steps, rates=[0.0] * STEPS, clip_norm=1.0, compute_losses=losses):
        pass
    state.last_losses.tolist()  # waits until the GPU has finished


def _batch(sets: Sets, batch_size: int, shape: tuple[int, int]) -> Batch:
    """Returns a batch of noise; each image has as many objects as the training image with the most objects."""
    most = max(1, int(np.diff(sets.train.first).max()))
    height, width = shape
    boxes = torch.tensor([0.0, 0.0, width / 2, height / 2]).repeat(batch_size, most, 1)
    return Batch(
        images=torch.randint(0, 256, (batch_size, height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2),
        targets=Targets(boxes, torch.zeros(batch_size, most, dtype=torch.int64)),
        sizes=torch.tensor([[height, width]] * batch_size),
        scales=torch.ones(batch_size, 2),
        rows=torch.zeros(batch_size, dtype=torch.int64),
    )

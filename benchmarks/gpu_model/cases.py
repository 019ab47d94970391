"""Defines the training steps and detection passes whose work is counted."""

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from benchmarks.gpu_model.compiled import Planned
from benchmarks.gpu_model.ledger import Ledger
from benchmarks.gpu_model.roofline import LAUNCH_SECONDS, Work
from retinanet.data.batches import Batch
from retinanet.data.device_feed import in_steps, on_device
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import find_candidates
from retinanet.detector.fold import folded_network
from retinanet.detector.loss import assign_targets
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_DETECTION, DEFAULT_LOSS, Architecture, LossSettings
from retinanet.detector.structures import Targets
from retinanet.runtime.device import autocast
from retinanet.training.compilation import SMALL_BATCH_PIXELS, Compiled
from retinanet.training.engine import train_steps
from retinanet.training.losses import ComputeLosses, losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage

GPU = torch.device("cuda", 0)
OBJECTS = 20  # rows of an image's targets
RATE = 1e-4
WARM_UP, TIMED = 3, 30  # steps on the host


class Case(NamedTuple):
    """A training step or a detection pass, in bfloat16."""

    depth: int
    height: int
    width: int
    batch_size: int
    num_classes: int
    head_norm: str = "none"
    loss: LossSettings = DEFAULT_LOSS
    ema_decay: float = 0.0

    @property
    def name(self) -> str:
        return f"R{self.depth} {self.height}x{self.width}, batch {self.batch_size}"

    def network(self) -> RetinaNet:
        return RetinaNet(Architecture(self.depth, head_norm=self.head_norm), self.num_classes).to(GPU)

    def batch(self) -> Batch:
        sizes = torch.tensor([[self.height, self.width]] * self.batch_size)
        boxes = torch.zeros(self.batch_size, OBJECTS, 4)
        targets = Targets(boxes, torch.zeros(self.batch_size, OBJECTS, dtype=torch.int64))
        images = torch.zeros(self.batch_size, self.height, self.width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        return pin_memory(Batch(images, targets, sizes, torch.ones(self.batch_size, 2), torch.arange(self.batch_size)))


class Counted(NamedTuple):
    """The counted work, and the peak memory that PyTorch allocated (without cuDNN's workspaces)."""

    work: Work
    peak: int


def _forget() -> None:
    """Releases the memory that earlier cases hold."""
    torch.compiler.reset()
    gc.collect()


def eager_step(case: Case) -> Counted:
    """Counts the work of a run's second step, since the first also creates constants and the optimiser's moments."""
    _forget()
    steps = _training(case, case.network(), num_steps=2)
    with Ledger():
        next(steps)
    torch.cuda.reset_peak_memory_stats(GPU)
    with Ledger() as ledger:
        next(steps)
    return Counted(ledger.work, torch.cuda.max_memory_allocated(GPU))


def compiled_step(case: Case, eager: Work) -> Work:
    """Counts the work of a step with --compile on.

    The forward and backward passes are as the compiler plans them, and the rest is as in `eager`.
    """
    _forget()
    network = case.network()
    losses, (images, targets) = _losses(case, network), _on_gpu(case.batch())
    anchors = anchors_for(case.height, case.width, GPU)
    with Ledger() as assigning:  # the assignment is not compiled
        assign_targets(anchors, targets, case.num_classes, case.loss, sparse=False, size=(case.height, case.width))
    with Ledger() as plain:
        torch.stack(losses(images, targets)).sum().backward()
    network.zero_grad()
    compiled_away = plain.work.launches - assigning.work.launches
    other_bytes = plain.work.other_bytes - assigning.work.other_bytes
    with Planned() as planned:
        steps = _training(case, network, WARM_UP + TIMED, is_compiled=True)
        for _ in range(WARM_UP):
            next(steps)
        host = median(_seconds(lambda: next(steps)) for _ in range(TIMED))
    own = len(planned.moved) + planned.num_convolutions
    is_graph = case.batch_size * case.height * case.width <= SMALL_BATCH_PIXELS
    return Work(
        convolutions=eager.convolutions,
        other_bytes=eager.other_bytes - other_bytes + sum(planned.moved),
        launches=eager.launches - compiled_away + (0 if is_graph else own),
        replays=2 if is_graph else 0,
        host=host + (0 if is_graph else LAUNCH_SECONDS * own),
    )


def _training(case: Case, network: RetinaNet, num_steps: int, *, is_compiled: bool = False) -> Iterator[object]:
    average = WeightAverage(network, case.ema_decay) if case.ema_decay else None
    state = TrainingState(network, build_optimizer(network, "adam", RATE, weight_decay=0.0), GPU, average=average)
    # The capture of CUDA graphs needs a real GPU.
    compiled = Compiled(case.batch_size, cuda_graphs=False) if is_compiled else None
    losses, steps = _losses(case, network, compiled), in_steps(on_device([case.batch()] * num_steps, GPU))
    return train_steps(state, steps, rates=[RATE] * num_steps, clip_norm=0.1, compute_losses=losses)


def _losses(case: Case, network: RetinaNet, compiled: Compiled | None = None) -> ComputeLosses:
    return losses_of(
        network, case.num_classes, GPU, loss_settings=case.loss, precision=torch.bfloat16, compiled=compiled
    )


def _on_gpu(batch: Batch) -> tuple[Tensor, Targets]:
    return batch.images.to(GPU), Targets(*(part.to(GPU) for part in batch.targets))


def _seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds that this process spends on `work`; other load on the machine isn't counted."""
    started = time.process_time()
    work()
    return time.process_time() - started


@torch.no_grad()
def detection(case: Case) -> Counted:
    """Counts the work of detection in a batch: the forward pass and the search for candidates.

    NMS is left out, because its work depends on the detections.
    """
    _forget()
    images, sizes = case.batch().images.to(GPU), torch.tensor([[case.height, case.width]] * case.batch_size, device=GPU)
    anchors = anchors_for(case.height, case.width, GPU)
    with Ledger():
        network = folded_network(case.network(), torch.bfloat16)
    torch.cuda.reset_peak_memory_stats(GPU)
    with Ledger() as ledger:
        with autocast(GPU, torch.bfloat16):
            predictions = network(images)
        find_candidates(predictions, anchors, sizes, DEFAULT_DETECTION.num_candidates)
    return Counted(ledger.work, torch.cuda.max_memory_allocated(GPU))

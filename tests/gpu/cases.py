"""Small batches, networks and trainings that a CPU and a GPU should agree on."""

from functools import cache
from typing import NamedTuple

import torch
from support.built import small_network
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from gpu.waits import waits_forbidden
from retinanet.data.batches import Batch
from retinanet.data.device_feed import in_steps, on_device
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings
from retinanet.detector.structures import CROWD, Targets
from retinanet.training.engine import progress_of, train_steps
from retinanet.training.losses import losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage

CPU = torch.device("cpu")
NUM_CLASSES = 2
RATES = {"sgd": 1e-3, "adam": 1e-4, "adamw": 1e-4}


class Case(NamedTuple):
    """What a training differs in from the defaults."""

    loss: LossSettings = DEFAULT_LOSS
    optimizer: str = "sgd"
    accumulate: int = 1
    ema_decay: float = 0.0
    head_norm: str = "none"
    learn_statistics: bool = False
    frozen: int = 0
    precision: torch.dtype = torch.float32
    scale: float = 2.0**12  # of float16's gradients
    size: tuple[int, int] = (64, 96)


PLAIN = Case()


class Trained(NamedTuple):
    changes: Tensor  # [P], of all weights together, from the first step's start on
    weights: dict[str, Tensor]  # and statistics, on the CPU
    average: dict[str, Tensor]
    losses: list[tuple[float, float]]  # of each step
    num_skipped: int


def make_batches(number: int, size: tuple[int, int] = (64, 96), *, pinned: bool = False) -> list[Batch]:
    """Batches of two images with an object, a crowd and padding among their targets."""
    draw = torch.Generator().manual_seed(number)
    batches = []
    for _ in range(number):
        images = torch.randint(256, (2, *size, 3), dtype=torch.uint8, generator=draw).permute(0, 3, 1, 2)
        corners = 24 * torch.rand(2, 3, 2, generator=draw)
        boxes = torch.cat([corners, corners + 16 + 24 * torch.rand(2, 3, 2, generator=draw)], dim=2)
        labels = torch.randint(NUM_CLASSES, (2, 3), generator=draw)
        labels[0, 1], labels[1, 2], boxes[1, 2] = CROWD, -1, 0
        image_sizes = torch.tensor([size, (size[0] - 4, size[1] - 9)])
        batch = Batch(images, Targets(boxes, labels), image_sizes, torch.ones(2, 2), torch.arange(2))
        batches.append(pin_memory(batch) if pinned else batch)
    return batches


def make_network(device: torch.device, case: Case = PLAIN) -> RetinaNet:
    network = small_network(NUM_CLASSES, channels=32, head_norm=case.head_norm, learn_statistics=case.learn_statistics)
    network.load_state_dict(_start(case.head_norm))
    network.backbone.freeze(case.frozen)
    return network.to(device)


@cache
def _start(head_norm: str) -> dict[str, Tensor]:
    """Weights from which training is as smooth as from ImageNet's: batch-norm statistics of what goes through them."""
    torch.manual_seed(0)
    network = small_network(NUM_CLASSES, channels=32, head_norm=head_norm, learn_statistics=True)
    for head in (network.classification_head, network.regression_head):
        torch.nn.init.normal_(head.output.weight, std=0.01)  # or the first gradients end there
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in make_batches(2, (128, 128)):
            network(batch.images)
    return network.state_dict()


def make_state(device: torch.device, case: Case = PLAIN) -> TrainingState:
    network = make_network(device, case)
    optimizer = build_optimizer(network, case.optimizer, RATES[case.optimizer], weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=case.precision == torch.float16, init_scale=case.scale)
    average = WeightAverage(network, case.ema_decay) if case.ema_decay else None
    return TrainingState(network, optimizer, device, scaler=scaler, average=average)


def train(device: torch.device, case: Case, num_steps: int = 4) -> Trained:
    """Train for `num_steps`; a step that makes the host wait for a GPU raises."""
    state = make_state(device, case)
    before = [parameter.detach().cpu().clone() for parameter in state.network.parameters()]
    losses = losses_of(state.network, NUM_CLASSES, device, precision=case.precision, loss_settings=case.loss)
    batches = make_batches(num_steps * case.accumulate, case.size, pinned=device.type == "cuda")
    rates = [RATES[case.optimizer]] * num_steps
    groups = in_steps(on_device(batches, device), case.accumulate)
    steps = train_steps(state, groups, rates=rates, clip_norm=1.0, compute_losses=losses)
    told = []
    for _ in range(num_steps):
        with waits_forbidden():
            next(steps)
        progress = progress_of(state, rates[0])
        told.append((progress.classification, progress.regression))
    after = [parameter.detach().cpu() for parameter in state.network.parameters()]
    return Trained(
        torch.cat([(new - old).flatten() for new, old in zip(after, before, strict=True)]),
        {name: value.cpu() for name, value in state.network.state_dict().items()},
        {name: value.cpu() for name, value in state.average.weights.items()} if state.average else {},
        told,
        len(state.skipped.take_new()),
    )

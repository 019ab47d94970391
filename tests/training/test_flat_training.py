"""A training on flat parameters is the one without."""

import math

import pytest
import torch

from retinanet.data.batches import Batch
from retinanet.detector.model import RetinaNet
from retinanet.detector.structures import Losses, Targets
from retinanet.training.engine import progress_of, train_steps
from retinanet.training.losses import Compiled, losses_of
from retinanet.training.optimizer import build_optimizer
from retinanet.training.state import TrainingState
from retinanet.training.weight_average import WeightAverage

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")
SHARES = (0.1, 0.1, 0.5, 1.0, 1.0)
RATES = [0.01, 0.02, 0.03, 0.02]


def batch_of(num_images, seed):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, 3, 64, 64), dtype=torch.uint8, generator=draw)
    corners = 30 * torch.rand(num_images, 3, 2, generator=draw)
    targets = Targets(torch.cat([corners, corners + 24], dim=2), torch.zeros(num_images, 3, dtype=torch.int64))
    return Batch(images, targets, torch.full((num_images, 2), 64), torch.ones(num_images, 2), torch.arange(num_images))


def state_of(optimizer="sgd", scale=None):
    torch.manual_seed(0)
    model = RetinaNet(2, 18, channels=8)
    model.backbone.conv1.requires_grad_(False)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=True) if scale else None
    own = build_optimizer(model, optimizer, RATES[0], 0.1, SHARES)
    return TrainingState(model, own, CPU, scaler=scaler, average=WeightAverage(model, 0.5))


def trained(state, batches, accumulate=1, flat=False, spoilt=()):
    """What there was to log after each step. Losses of the calls `spoilt` are infinite."""
    compiled = Compiled(2, state.flatten(), backend="eager") if flat else None
    torch._dynamo.reset()
    plain, calls = losses_of(state.network, 2, CPU, compiled=compiled), iter(range(100))

    def compute(images, targets):
        losses = plain(images, targets)
        return Losses(losses.classification * math.inf, losses.regression) if next(calls) in spoilt else losses

    how = {"rates": RATES, "clip_norm": 1.0, "compute_losses": compute, "accumulate": accumulate}
    told = []
    for rate in train_steps(state, batches, **how):
        progress = progress_of(state, rate)
        told.append([progress.classification, progress.regression, progress.gradient_norm, progress.clipped])
    return told


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "sizes", "accumulate", "scale"),
    [
        ("sgd", (2, 2, 2), 1, None),
        ("sgd", (2, 1, 2), 1, None),  # the second runs as it is
        ("sgd", (2, 1, 2, 2), 2, 256.0),  # both gradients are of one step
        ("adamw", (2, 2), 1, None),
    ],
)
def test_the_numbers_are_the_same(optimizer, sizes, accumulate, scale):
    batches = [batch_of(size, seed) for seed, size in enumerate(sizes)]
    plain, flat = state_of(optimizer, scale), state_of(optimizer, scale)
    wanted = trained(plain, batches, accumulate)
    for one, other in zip(trained(flat, batches, accumulate, flat=True), wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    # Adam's first steps are as large for a small gradient as for a large one, so rounding decides some of them.
    if optimizer == "sgd":
        assert_same_state(flat.weights(), plain.weights())
        assert_same_state(flat.average.weights, plain.average.weights)
    with flat.average.in_place():
        assert_same_state(flat.weights(), flat.average.weights)
    states = [state.to_plain()["optimizer"]["state"] for state in (flat, plain)]
    assert states[0].keys() == states[1].keys()


def test_a_bad_step_leaves_all_as_it_was():
    state = state_of("adam")
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    trained(state, [batch_of(2, 0)], flat=True, spoilt={0})
    assert len(state.skipped.take_new()) == 1
    assert all(map(torch.equal, state.network.state_dict().values(), before.values()))


def test_saved_weights_are_no_parts_of_others():
    state = state_of()
    state.flatten()
    for value in state.weights().values():
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()

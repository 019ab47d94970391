"""Between two log lines nothing may wait for the device. Proved on a CPU that the code takes for a GPU."""

import warnings

import pytest
import torch
from support.built import small_losses, small_network, small_set, small_state
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet.data.batches import Batch
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.detector.anchors import anchors_for
from retinanet.detector.loss import detection_loss
from retinanet.detector.settings import BOX_LOSSES, MATCHERS, LossSettings
from retinanet.detector.structures import CROWD, Predictions, Targets
from retinanet.evaluation.views import Views, look_with, merged_views
from retinanet.training.engine import progress_of, train_steps

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 99)  # which no cache has anything of
# Operations whose result's shape or Python value depends on what is in a tensor.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "repeat_interleave"}


class PretendGpu(TorchFunctionMode):
    """Tensors say that they lie on a GPU; what is to be made there is made here.

    `copies` are those that would make the host wait: of what lies in memory that is not pinned.
    """

    def __init__(self):
        super().__init__()
        self.copies, self.pinned = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return GPU
        if func == torch.Tensor.pin_memory:
            self.pinned.append(args[0])
            return args[0]
        kwargs = kwargs or {}
        if GPU in [value for value in (*args[1:], kwargs.get("device")) if isinstance(value, torch.device)]:
            is_pinned = any(args[0] is tensor for tensor in self.pinned) and kwargs.get("non_blocking")
            if func == torch.tensor or (func == torch.Tensor.to and not is_pinned):
                self.copies.append(func.__name__)
        here = {name: CPU if value == GPU else value for name, value in kwargs.items()}
        return func(*(CPU if isinstance(value, torch.device) and value == GPU else value for value in args), **here)


class CountWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or masked:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def waits_of_an_epoch(tmp_path, log_every, change=None):
    """The waiting operations of an epoch of 7 iterations, those of log lines included, and the number of these."""
    loader, _ = training_loader(small_set(tmp_path, 7), LoaderSettings(1), seed=1)
    batches = [[loaded.batch] for loaded in loader]
    state, lines = small_state(), 0
    losses_on, copies = small_losses(state.network, GPU), []

    def losses(images, targets):
        with PretendGpu() as gpu, warnings.catch_warnings(action="ignore"):  # autocast's, that there is no GPU
            found = losses_on(images, targets)
            copies.extend(gpu.copies)
            return change(found) if change else found

    with CountWaits() as counter:
        for rate in train_steps(state, batches, rates=[1e-4] * 7, clip_norm=0.1, compute_losses=losses):
            if state.iteration in (1, 7) or state.iteration % log_every == 0:
                state.skipped.take_new()
                progress_of(state, rate)
                lines += 1
    return counter.waits + copies, lines


@pytest.fixture(autouse=True)
def test_nothing_waits_between_two_log_lines(tmp_path):
    often, lines = waits_of_an_epoch(tmp_path / "often", log_every=1)
    assert lines == 7
    assert len(often) % lines == 0
    a_line = len(often) // lines
    assert 0 < a_line <= 8  # the log line's own numbers
    seldom, lines = waits_of_an_epoch(tmp_path / "seldom", log_every=100)
    assert lines == 2  # the first and the last iteration
    assert len(seldom) == 2 * a_line


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_no_loss_waits(matcher, box_loss):
    boxes = anchors_for(64, 96, CPU)
    predictions = Predictions(torch.zeros(2, len(boxes), 2), torch.zeros(2, len(boxes), 4, requires_grad=True))
    targets = Targets(torch.tensor([[[8.0, 8, 40, 40]], [[0, 0, 90, 60]]]), torch.tensor([[1], [CROWD]]))
    settings = LossSettings(matcher=matcher, box_loss=box_loss, ignore_crowds=True)
    with PretendGpu() as gpu, CountWaits() as counter:
        losses = detection_loss(predictions, anchors_for(64, 96, GPU), targets, settings, (64, 96))
        losses.regression.backward()
    assert predictions.deltas.grad.any()
    assert not counter.waits
    assert not gpu.copies


def test_a_wait_would_be_seen(tmp_path):
    def look(losses):
        assert losses.classification.item() > 0
        return losses

    waits, lines = waits_of_an_epoch(tmp_path, log_every=100, change=look)
    assert len(waits) >= 7 + lines


@pytest.mark.parametrize(
    "copy",
    [
        lambda: torch.zeros(3).to(GPU),
        lambda: torch.zeros(3).pin_memory().to(GPU),
        lambda: torch.tensor([1], device=GPU),
    ],
)
def test_a_copy_that_waits_would_be_seen(copy):
    with PretendGpu() as gpu:
        copy()
    assert gpu.copies


@pytest.mark.parametrize("mode", ["nonzero", "mask"])
def test_the_counter_knows_masks(mode):
    with CountWaits() as counter:
        values = torch.arange(4)
        _ = values[values > 1] if mode == "mask" else values.nonzero()
    assert counter.waits


def test_looking_at_all_views_waits_for_nothing():
    """So that a GPU has the next view to work on: only the suppression waits, once a batch."""
    sizes, scales, nothing = torch.tensor([[64, 96], [60, 81]]), torch.ones(2, 2), torch.zeros(2, 1)
    batches = [
        Batch(
            torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8),
            Targets(nothing, nothing),
            sizes,
            scales,
            sizes,
        )
        for shape in ((64, 96), (96, 128))
    ]
    look = look_with(small_network().eval(), num_candidates=9, device=CPU, precision=torch.float32)
    with CountWaits() as counter:
        found = list(merged_views(look, batches, Views([(64, 96)] * 2, flip=True)))
    assert len(found) == 1
    assert counter.waits == []

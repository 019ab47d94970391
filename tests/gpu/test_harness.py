"""The pretended GPU itself: right numbers, and it sees the faults that it is there to find."""

import pytest
import torch
from torch import nn
from torchvision.ops import nms

CPU, GPU, OTHER = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


def test_numbers_are_the_cpus(host):
    x = torch.randn(4, 6, 9, 9)
    layer = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5))
    wanted = layer(x)
    wanted.square().sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    found = layer.to(GPU)(x.to(GPU))
    found.square().sum().backward()
    assert found.device == GPU
    torch.testing.assert_close(found.cpu(), wanted)
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient)
    assert host.runtime.launches > 0


def test_reading_before_writing_gives_nan(host):
    assert torch.empty(4096, device=OTHER).isnan().any()


def test_a_tensor_can_be_printed(host):
    for tensor in (torch.arange(4000.0, device=GPU), torch.tensor([0.5, torch.nan], device=OTHER)):
        assert repr(tensor) == f"{tensor.cpu()!r} on {tensor.device}"


def test_two_devices_in_one_operation(host):
    x = torch.ones(3, device=GPU)
    for other in (torch.ones(3), torch.ones(3, device=OTHER)):
        with pytest.raises(RuntimeError, match="same device"):
            x + other


def test_a_kernel_that_cuda_lacks(host):
    x = torch.arange(9).view(3, 3)
    assert x.mm(x).shape == (3, 3)  # a CPU has it
    with pytest.raises(RuntimeError, match="not implemented for"):
        x.to(GPU).mm(x.to(GPU))
    with pytest.raises(RuntimeError, match="Could not run 'aten::histogram"):
        torch.ones(9, device=GPU).histogram(3)


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("_to_copy", lambda x: x.cpu()),
        ("_to_copy", lambda x: torch.ones(3).to(GPU)),
        ("_to_copy", lambda x: torch.ones(3).to(GPU, non_blocking=True)),  # unpinned: PyTorch itself says nothing
        ("nonzero", lambda x: x.nonzero()),
        ("index", lambda x: x[x > 0]),
    ],
)
def test_a_wait(host, name, work):
    x = torch.ones(3, device=GPU)
    work(x)
    assert host.waits == [name]
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match=r"synchronizing CUDA|host wait"):
        work(x)


def test_no_wait(host):
    torch.cuda.set_sync_debug_mode("error")
    x = torch.ones(3).pin_memory().to(GPU, non_blocking=True)
    x[1:] = 0
    x.index_add_(0, x.long(), x.clamp(min=0)).sort(stable=True)
    assert host.waits == []


def test_an_event_on_the_wrong_device(host):
    with torch.cuda.device(OTHER):
        stream = torch.cuda.Stream()
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(GPU))
    with pytest.raises(RuntimeError, match="Event device"):
        event.record(stream)


def test_memory_that_runs_out(host):
    host.memory_ends_at = "test_memory_that_runs_out", "mul"
    x = torch.ones(3, device=GPU) + 1
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        x * x


def test_a_launch_that_the_chip_refuses():
    """Above 393,216 boxes torchvision's last kernel wants more shared memory than it asked for."""
    boxes, scores = torch.empty(400_000, 4, device=GPU), torch.empty(400_000, device=GPU)
    with pytest.raises(RuntimeError, match="invalid argument"):
        nms(boxes, scores, 0.5)

"""The work that benchmarks/gpu_model counts."""

import pytest
import torch
from support.length import IS_LONG
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_model.cases import Case, compiled_step, detection, eager_step
from benchmarks.gpu_model.ledger import Ledger
from benchmarks.gpu_model.roofline import GPUS, MATRIX_RATE, Convolution, Work
from gpu.cases import make_batches, make_network

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SMALL = Case(depth=18, height=128, width=192, batch_size=2, num_classes=80)


def test_flops_are_those_that_pytorch_counts():
    (batch,) = make_batches(1, (128, 160))
    found = []
    for device, counter in ((CPU, FlopCounterMode(display=False)), (GPU, Ledger())):
        network = make_network(device)
        images = batch.images.to(device)
        with counter:
            logits, deltas = network(images)
            (logits.sum() + deltas.sum()).backward()
        found.append(counter.get_total_flops() if device == CPU else counter.work.flops)
    assert found[1] == found[0]


def test_bytes_by_hand():
    one, other = torch.zeros(1000, device=GPU), torch.zeros(1000, device=GPU, dtype=torch.bfloat16)
    with Ledger() as ledger:
        one.add_(other)
        other.zero_()
        one[torch.arange(10, device=GPU)]
        one.view(10, 100)
    assert ledger.bytes_by_operation == {"add_": 4000 + 2000 + 4000, "zero_": 2000, "arange": 80, "index": 80 + 2 * 40}


def test_the_slower_of_rate_and_memory_counts():
    gpu = GPUS[0]
    busy, moving = Convolution(flops=1e12, bytes=0), Convolution(flops=0, bytes=gpu.bandwidth)
    work = Work([busy, moving], other_bytes=gpu.bandwidth, launches=0)
    assert work.gpu_seconds(gpu) == pytest.approx(1e12 / (0.75 * MATRIX_RATE) + 2 / 0.84)
    assert work._replace(launches=10**7).seconds(gpu) == 70
    assert work._replace(launches=10**7, host=0.0).seconds(gpu) == work.gpu_seconds(gpu)


@pytest.mark.skipif(not IS_LONG, reason="compiling takes half a minute")
def test_the_compiler_plans_less():
    eager = eager_step(SMALL).work
    compiled = compiled_step(SMALL, eager)
    assert compiled.replays == 2
    assert compiled.launches < 0.5 * eager.launches
    assert compiled.bytes < 0.8 * eager.bytes
    assert compiled.flops == eager.flops


def test_a_detection_works_less_than_a_step():
    step, found = eager_step(SMALL), detection(SMALL)
    assert 0 < found.work.launches < step.work.launches
    assert 0 < found.work.flops < 0.5 * step.work.flops
    assert 0 < found.peak < step.peak

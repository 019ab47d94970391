import pytest
import torch

from retinanet.detector.loss import assign_targets, loss_of_assigned
from retinanet.detector.structures import Predictions, Targets
from retinanet.fast import focal_one_pass
from retinanet.fast.focal_one_pass import FocalLoss, OnePassFocalLoss, focal_loss_on

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_and_its_gradient_are_the_plain_ones(dtype):
    """On a CPU the operation is made of FocalLoss; what is around it is as on a GPU."""
    corners = 20 * torch.rand(40, 2)
    anchors = torch.cat([corners, corners + 8 + 8 * torch.rand(40, 2)], dim=1)
    targets = Targets(torch.stack([anchors[:2], anchors[2:4]]), torch.tensor([[1, 0], [2, -1]]))
    assignment = assign_targets(anchors, targets, 3, sparse=False)
    results = []
    for way in (OnePassFocalLoss.apply, FocalLoss.apply):
        torch.manual_seed(0)
        logits = torch.randn(2, 40, 3).to(dtype).requires_grad_()
        losses = loss_of_assigned(Predictions(logits, torch.zeros(2, 40, 4)), assignment, focal_loss=way)
        (1000 * losses.classification).backward()
        assert logits.grad.dtype == dtype
        results.append((losses.classification.detach(), logits.grad))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_cpu_has_the_plain_one():
    assert focal_loss_on(CPU, torch.float32) == FocalLoss.apply


def test_a_gpu_without_a_compiler_has_the_plain_one(monkeypatch):
    monkeypatch.setattr(focal_one_pass, "lacking_for_compilation", lambda device: "a C compiler")
    assert focal_loss_on(GPU, torch.float32) == FocalLoss.apply


@pytest.fixture
def kernel(monkeypatch):
    """Takes the kernel's place in a trial on the CPU: called with its arguments, which it may spoil."""
    monkeypatch.setattr(focal_one_pass, "lacking_for_compilation", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode(False))
    agrees = focal_one_pass._agrees
    monkeypatch.setattr(focal_one_pass, "_agrees", lambda device, dtype: agrees(CPU, dtype))
    return lambda way: monkeypatch.setattr(focal_one_pass, "focal_sum", way)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_kernel_that_agrees_is_taken(kernel, dtype):
    kernel(focal_one_pass._plain_sum)
    assert focal_loss_on(GPU, dtype) == OnePassFocalLoss.apply


def test_a_kernel_that_errs_is_not_and_a_warning_says_so(kernel):
    def off_by_a_little(*arguments):
        total, gradient = focal_one_pass._plain_sum(*arguments)
        return total, 1.001 * gradient

    def without_a_driver(*arguments):
        raise RuntimeError("no driver\nand much more")

    for way, problem in ((off_by_a_little, "other numbers"), (without_a_driver, r"RuntimeError: no driver$")):
        kernel(way)
        with pytest.warns(UserWarning, match=problem):
            assert focal_loss_on(GPU, torch.float32) == FocalLoss.apply

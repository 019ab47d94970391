"""The Triton kernel: as Triton's interpreter runs it on a CPU, beside equation 5 in float64, and compiled for GPUs."""

import importlib
import sys

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton")

NUM_IMAGES, NUM_TERMS = 2, 2400  # each; a program of the kernel has 2048
OF_GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-5}


@pytest.fixture
def focal_sum(monkeypatch):
    """Of the kernel, which Triton turns into Python where it is defined."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop("retinanet.fast.focal_kernel", None)
    yield importlib.import_module("retinanet.fast.focal_kernel").focal_sum
    del sys.modules["retinanet.fast.focal_kernel"]


def make_case(num_classes, dtype, spread):
    """Logits and weights of their anchors: some foreground, some ignored, the others background."""
    draw = torch.Generator().manual_seed(num_classes)
    num_anchors = NUM_TERMS // num_classes
    logits = spread * torch.randn(NUM_IMAGES, num_anchors, num_classes, generator=draw)
    kinds = torch.randint(8, (NUM_IMAGES, num_anchors), generator=draw)
    shares = torch.tensor([[0.3], [0.01]])
    weights = torch.where(kinds == 1, 0, shares.expand_as(kinds))
    labels = torch.randint(num_classes, (NUM_IMAGES * num_anchors,), generator=draw)
    present = torch.arange(len(labels)) * num_classes + labels
    return logits.to(dtype), weights, present, ((kinds == 0) * shares).flatten()


def literal(logits, weights, present, present_weights, alpha, gamma):
    logits = logits.double().requires_grad_()
    is_present = torch.zeros(logits.numel(), dtype=torch.bool)
    is_present[present[present_weights > 0]] = True
    is_present = is_present.view_as(logits)
    scores = logits.sigmoid()
    terms = torch.where(
        is_present,
        alpha * (1 - scores) ** gamma * F.softplus(-logits),
        (1 - alpha) * scores**gamma * F.softplus(logits),
    )
    total = (terms * weights[..., None]).sum()
    return total.detach(), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("dtype", OF_GRADIENT)
@pytest.mark.parametrize(("num_classes", "spread"), [(1, 1.0), (80, 1.0), (7, 10.0)])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.4, 0.0), (0.5, 1.5)])
def test_value_and_gradient(focal_sum, dtype, num_classes, spread, alpha, gamma):
    case = make_case(num_classes, dtype, spread)
    (total, gradient), (wanted, slopes) = (way(*case, alpha, gamma) for way in (focal_sum, literal))
    assert total.dtype == torch.float32
    assert gradient.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    assert abs(total - wanted) <= 1e-5 * wanted
    assert (gradient - slopes).norm() <= OF_GRADIENT[dtype] * slopes.norm()
    on_objects = case[2][case[3] > 0]  # few and unlike the others
    found, own = gradient.flatten()[on_objects], slopes.flatten()[on_objects]
    assert (found - own).norm() <= OF_GRADIENT[dtype] * own.norm()


def test_logits_of_any_size_are_finite_and_small_terms_exact(focal_sum):
    logits = torch.tensor([-1e4, -100, -50, -18, -12, -5, 5, 50, 1e4]).view(1, -1, 1)
    num = logits.numel()
    weights, nobody = torch.ones(1, num), torch.zeros(num)
    total, gradient = focal_sum(logits, weights, torch.arange(num), nobody, 0.25, 0.0)
    wanted, slopes = literal(logits, weights, torch.arange(num), nobody, 0.25, 0.0)
    torch.testing.assert_close(total, wanted.float())
    torch.testing.assert_close(gradient, slopes.float(), rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("capability", [70, 90])
@pytest.mark.parametrize(("logits", "gradient"), [("*bf16", "*bf16"), ("*fp16", "*fp32")])
def test_it_compiles_to_a_gpus_code(monkeypatch, tmp_path, capability, logits, gradient):
    """What the interpreter takes, the compiler may refuse."""
    compiler = pytest.importorskip("triton.compiler")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = importlib.import_module("retinanet.fast.focal_kernel")._kernel
    tensors = (logits, "*fp32", "*i64", "*fp32", gradient, "*fp32")
    signature = dict(zip(kernel.arg_names, (*tensors, "i32", "i32", "fp32", "fp32", "constexpr"), strict=True))
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs={"at_once": 2048})
    assert compiler.compile(source, target=target).asm["cubin"]

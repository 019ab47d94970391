import pytest
import torch

from retinanet.runtime import device as runtime_device
from retinanet.runtime.device import (
    autocast,
    choose_precision,
    fastest_precision,
    lacking_for_compilation,
    searching_algorithms,
)
from retinanet.runtime.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_on_a_cpu():
    assert choose_precision("auto", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(UserError, match="float16 needs a GPU"):
        choose_precision("float16", CPU)


@pytest.mark.parametrize(
    ("features", "vendor", "chosen"),
    [
        (["amx_bf16", "avx512_bf16"], "GenuineIntel", "bfloat16"),
        (["avx512_vnni", "avx512_bf16"], "AuthenticAMD", "bfloat16"),
        (["avx512_vnni", "avx512_bf16"], "GenuineIntel", "auto"),  # a Xeon whose AMX is hidden: bfloat16 is slower
        (["avx512_vnni"], "AuthenticAMD", "auto"),
        ([], "", "auto"),
    ],
)
def test_detection_on_a_cpu_is_in_bfloat16_where_that_is_faster(monkeypatch, features, vendor, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime_device, "cpu_features", lambda: features)
    monkeypatch.setattr(runtime_device, "cpu_vendor", lambda: vendor)
    assert [fastest_precision("auto", name) for name in ("cpu", "auto")] == [chosen, chosen]
    assert fastest_precision("float32", "cpu") == "float32"
    assert fastest_precision("auto", "cuda") == "auto"


@pytest.mark.parametrize(("has", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_gpu(monkeypatch, has, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    try:
        assert choose_precision("auto", GPU) == chosen
        assert choose_precision("float16", GPU) == torch.float16
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("device", "current"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_the_requested_gpu_becomes_the_current_one(monkeypatch, device, current):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    try:
        choose_precision("float32", torch.device(device))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert chosen == [torch.device(name) for name in current]


def test_float32_is_left_unchanged():
    with autocast(CPU, torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_searches_end_where_they_are_not_wanted(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with searching_algorithms(False):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


@pytest.fixture
def capable(monkeypatch, tmp_path):
    """A machine that lacks nothing."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    return tmp_path


@pytest.mark.parametrize("device", [CPU, GPU])
def test_nothing_is_lacking_for_compilation(capable, device):
    assert lacking_for_compilation(device) is None


def test_compilation_needs_a_compiler(capable, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for device in (CPU, GPU):
        assert "C compiler" in lacking_for_compilation(device)


def test_compilation_for_a_gpu_needs_triton(capable, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton" in lacking_for_compilation(GPU)
    assert lacking_for_compilation(CPU) is None


def test_compilation_needs_a_newer_gpu(capable, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (6, 1))
    assert "7.0" in lacking_for_compilation(GPU)


def test_compilation_for_a_gpu_needs_the_header_of_python(capable):
    (capable / "Python.h").unlink()
    assert "Python.h" in lacking_for_compilation(GPU)
    assert lacking_for_compilation(CPU) is None  # PyTorch's C++ for a CPU does without

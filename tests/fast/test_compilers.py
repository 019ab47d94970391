import pytest
import torch

from retinanet.fast.compilers import lacking_for_compilation

CPU, GPU = torch.device("cpu"), torch.device("cuda")


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
def test_nothing(capable, device):
    assert lacking_for_compilation(device) is None


def test_a_compiler(capable, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for device in (CPU, GPU):
        assert "C compiler" in lacking_for_compilation(device)


def test_triton(capable, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton" in lacking_for_compilation(GPU)
    assert lacking_for_compilation(CPU) is None


def test_a_newer_gpu(capable, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (6, 1))
    assert "7.0" in lacking_for_compilation(GPU)


def test_the_header_of_python(capable):
    (capable / "Python.h").unlink()
    assert "Python.h" in lacking_for_compilation(GPU)
    assert lacking_for_compilation(CPU) is None  # PyTorch's C++ for a CPU does without

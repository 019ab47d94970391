import argparse

import pytest
import torch

from retinanet.runtime.device import find_device
from retinanet.runtime.errors import UserError
from retinanet.settings.options import number_above, number_from, whole_number
from retinanet.settings.shared import device_name


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (whole_number(1), ["1", "72"], ["0", "-1", "1.5", "x", "", str(2**70)]),
        (number_above(0), ["0.1", "1e-4"], ["0", "-1", "nan", "inf", "x"]),
        (number_from(0, 1), ["0", "0.5", "1"], ["-0.1", "1.1", "nan"]),
    ],
)
def test_numbers(parse, good, bad):
    assert [parse(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected a "):
            parse(text)


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cuda:99", "mps", ""])
def test_devices_that_are_not_there(text):
    with pytest.raises((argparse.ArgumentTypeError, UserError)):
        find_device(device_name(text))


def test_devices():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_under_torchrun_each_rank_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_device("cuda") == find_device("auto") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"each needs its own.*cuda or auto"):
        find_device("cuda:0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert find_device("cuda:0") == torch.device("cuda:0")

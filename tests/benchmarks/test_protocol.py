import re

import torch
from torch.nn import functional as F

from benchmarks.speed import protocol


def test_a_profile_lists_the_time_of_one_call(capsys, monkeypatch):
    monkeypatch.setattr(protocol, "matrix_rate", lambda device, precision: 1e9)
    images, weights = torch.ones(1, 8, 64, 64), torch.ones(16, 8, 3, 3)

    protocol.print_profile(lambda: F.conv2d(images, weights).relu(), torch.device("cpu"), torch.float32, calls=3)

    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\S+|\d+ others) \| ([\d.]+) \| ([\d.]+)% \| (\d+) \|$", out, re.MULTILINE)
    assert any("convolution" in name and calls == "1" for name, _, _, calls in rows)  # it takes most of the time
    assert abs(sum(float(share) for _, _, share, _ in rows) - 100) < 1
    total = float(re.search(r"^All: ([\d.]+) ms\.", out, re.MULTILINE)[1])
    assert abs(sum(float(time) for _, time, _, _ in rows) - total) < 0.2
    assert "0.00886 GFLOP, which would take 8.9 ms" in out  # 2 x 16 x 62 x 62 x 8 x 9

import pytest

from benchmarks.scale import INPUTS, MEASURED, simulate

VALUES = {name: one.value for name, one in INPUTS.items()}


def test_one_gpu_only_saves():
    one = simulate(1, 16, VALUES | {"spread": 0.0})

    assert one.efficiency == pytest.approx(1 - VALUES["save_seconds"] / 60)
    assert (one.all_reduce, one.network, one.waiting) == (0, 0, pytest.approx(0))


def test_more_gpus_are_faster_and_less_efficient():
    many = [simulate(count, 16, VALUES) for count in (1, 8, 64, 512)]

    rates, shares = [one.images_per_second for one in many], [one.efficiency for one in many]
    assert rates == sorted(rates)
    assert shares == sorted(shares, reverse=True)


def test_a_slow_network_is_waited_for():
    fast, slow = (simulate(64, 16, VALUES | {"machine_bandwidth": rate}) for rate in (40e9, 2e9))

    assert fast.all_reduce == 0
    # 2 x 152 MB x 63/64 at 2 GB/s, of which half of the step of 16/280 s is hidden.
    assert slow.all_reduce == pytest.approx(2 * 152e6 * 63 / 64 / 2e9 - 8 / 280)


def test_what_is_measured_names_its_command_or_file():
    assert all(one.source for one in INPUTS.values())
    assert {one.kind for one in INPUTS.values()} >= {MEASURED}

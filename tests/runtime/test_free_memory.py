import pytest

from retinanet.runtime.free_memory import free_memory

MACHINE = 8_000_000 * 1024


@pytest.fixture
def machine(tmp_path):
    """Returns a function that measures the free memory of a machine with the given files."""

    def measure(**files):
        texts = {"proc/meminfo": f"MemTotal: 16000000 kB\nMemAvailable: {MACHINE // 1024} kB\n"} | files
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return free_memory(tmp_path / "proc", tmp_path / "groups")

    return measure


def test_without_control_groups_the_machine_decides(machine):
    assert machine() == MACHINE


def test_a_container_with_version_2_has_its_limit(machine):
    files = {
        "proc/self/cgroup": "0::/\n",
        "groups/memory.max": "1000000\n",
        "groups/memory.current": "600000\n",
        "groups/memory.stat": "anon 300000\nactive_file 100000\ninactive_file 200000\n",
    }
    assert machine(**files) == 1_000_000 - 600_000 + 200_000  # the kernel gives up files that it caches


def test_the_lowest_limit_of_the_groups_around_the_process_holds(machine):
    stat = "inactive_file 0\n"
    files = {
        "proc/self/cgroup": "0::/job_7/step_0\n",
        "groups/job_7/memory.max": "5000\n",
        "groups/job_7/memory.current": "4000\n",
        "groups/job_7/memory.stat": stat,
        "groups/job_7/step_0/memory.max": "max\n",
        "groups/job_7/step_0/memory.current": "3000\n",
        "groups/job_7/step_0/memory.stat": stat,
    }
    assert machine(**files) == 1000
    assert machine(**{"groups/job_7/step_0/memory.max": "3100\n"}) == 100
    assert machine(**{"groups/job_7/step_0/memory.max": "2000\n"}) == 0  # a limit may be lowered below what is used


def test_version_1_has_its_limits_below_memory(machine):
    files = {
        "proc/self/cgroup": "5:devices:/\n4:cpu,memory:/docker/a:b\n0::/\n",
        "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "groups/memory/memory.usage_in_bytes": "70000\n",
        "groups/memory/memory.stat": "total_inactive_file 0\n",
        "groups/memory/docker/a:b/memory.limit_in_bytes": "2000\n",
        "groups/memory/docker/a:b/memory.usage_in_bytes": "1500\n",
        "groups/memory/docker/a:b/memory.stat": "inactive_file 0\ntotal_inactive_file 100\n",
    }
    assert machine(**files) == 600


def test_this_machine_has_free_memory():
    assert 0 < free_memory() < 2**50

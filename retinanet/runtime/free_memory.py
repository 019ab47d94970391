"""Measures how much memory is free, also where a container or a batch system limits it."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_memory(proc: Path = PROC, control_groups: Path = CONTROL_GROUPS) -> int:
    """Returns how many bytes this process can still take: those free on the machine or, if less, below its limits.

    The limits are those of the process's control groups (version 1 or 2), which containers and Slurm jobs have.
    """
    return max(0, min([_free_on_machine(proc), *_free_below_limits(proc, control_groups)]))


def _free_on_machine(proc: Path) -> int:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_below_limits(proc: Path, control_groups: Path) -> Iterator[int]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            root, limit, used, reclaimable = control_groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root = control_groups / "memory"
            limit, used, reclaimable = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = root / group.lstrip("/")
        for each in [folder, *folder.parents]:  # a limit covers all groups below it
            if each.is_relative_to(root):
                try:
                    most, taken = int((each / limit).read_text()), int((each / used).read_text())
                    stat = dict(row.split() for row in (each / "memory.stat").read_text().splitlines())
                except (OSError, ValueError):  # the group has no limit ("max"), or isn't visible from in here
                    continue
                yield most - taken + int(stat.get(reclaimable, 0))

"""Connects the processes that torchrun starts for training one network, and lets them wait for each other."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from retinanet.runtime.errors import OutOfResources
from retinanet.runtime.resource_errors import is_out_of_gpu_memory

MEETING = timedelta(minutes=10)  # the time for all ranks to start
PATIENCE = timedelta(days=1)  # the time for work that only rank 0 does, such as the COCO table or parsing a file
# If a rank is missing, NCCL ends the process without a message, so the ranks must notice the loss before NCCL does.
NCCL_GRACE = timedelta(minutes=5)
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out waiting",
    "Broken pipe",
    "NCCL",
    "Gloo",
    "gloo",
)


class Ranks(NamedTuple):
    """Holds this process's rank among `size` ranks, and the Gloo groups in which the ranks wait for each other.

    NCCL collectives don't block or raise on the host; Gloo collectives raise if a rank is dead or late.
    """

    rank: int = 0
    size: int = 1
    group: Any = None  # its timeout is PATIENCE
    steps: Any = None  # its timeout is --timeout

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Waits until all ranks call this."""
        if self.size > 1:
            dist.barrier(self.group)

    def meet(self) -> None:
        """Waits until all ranks reach this point of a step; raises RuntimeError if a rank is dead or too late."""
        if self.size > 1:
            dist.barrier(self.steps)

    def waiting(self, seconds: float) -> "Ranks":
        """Returns a copy with a different timeout for steps. Collective: every rank must call this."""
        if self.size == 1:
            return self
        return self._replace(steps=dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds)))

    def all_agree(self, vote: bool) -> bool:
        """Returns True if every rank's `vote` is True. Collective: every rank must call this."""
        votes = torch.tensor(int(vote))
        if self.size > 1:
            dist.all_reduce(votes, dist.ReduceOp.MIN, self.group)
        return bool(votes)

    @contextmanager
    def first_of_machine_alone(self) -> Iterator[None]:
        """Lets the first rank of each machine run the block before the others do."""
        is_first_here = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        if not is_first_here:
            self.wait()
        yield
        if is_first_here:
            self.wait()

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Calls `make` on rank 0 only, and returns its result on every rank."""
        if self.size == 1:
            return make()
        box = [make() if self.is_first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Replaces the `tensors` in place with those of rank 0. Collective: every rank must call this."""
        if self.size > 1:
            self.wait()  # rank 0 may be busy for longer than --timeout
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gathered(self, content: Any) -> list[Any]:
        """On rank 0, returns the `content` of every rank; on the other ranks, an empty list."""
        if self.size == 1:
            return [content]
        boxes = [None] * self.size if self.is_first else None
        dist.gather_object(content, boxes, dst=0, group=self.group)
        return boxes or []

    def summed(self, numbers: Tensor) -> Tensor:
        """Sums `numbers` over the ranks in place, without waiting for a GPU, and returns them."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers


ALONE = Ranks()


class Agreement:
    """Lets the ranks agree on the largest number that any of them puts forward, without waiting for a GPU."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.number = ranks, torch.zeros(1, dtype=torch.int64)
        self.work: Any = None

    def put_forward(self, number: int) -> None:
        self.number.fill_(number)
        if self.ranks.size > 1:
            self.work = dist.all_reduce(self.number, dist.ReduceOp.MAX, self.ranks.steps, async_op=True)

    def outcome(self) -> int:
        if self.work is not None:
            self.work.wait()
        return int(self.number)


def num_restarts() -> int:
    """Returns how many times torchrun has restarted the ranks because one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def num_local_ranks(ranks: Ranks) -> int:
    """Returns the number of ranks on this machine, as torchrun gives it; without torchrun, the number of `ranks`."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size)) if ranks.size > 1 else 1


def join(device: torch.device, timeout: float) -> Ranks:
    """Connects to the other ranks that torchrun started; without torchrun, this process is the only rank.

    A rank that keeps the others waiting in a training step for more than `timeout` seconds counts as lost.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return Ranks()
    rank = int(os.environ["RANK"])
    try:
        store = _store(rank, size)
        # At the start, the ranks may be further apart in time than at later steps.
        store.set(f"here {rank}", "")
        store.wait([f"here {other}" for other in range(size)], MEETING)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        limit = timedelta(seconds=timeout)
        backend, grace = ("cpu:gloo,cuda:nccl", NCCL_GRACE) if device.type == "cuda" else ("gloo", timedelta())
        dist.init_process_group(backend, timeout=limit + grace, store=store, rank=rank, world_size=size)
        group, steps = (dist.new_group(backend="gloo", timeout=time) for time in (PATIENCE, limit))
        return Ranks(rank, size, group, steps)
    except RuntimeError as error:
        raise OutOfResources(
            f"rank {rank} could not connect to all {size} ranks ({str(error).splitlines()[0][:160]}). Check that all "
            "of them are started and that the machines can reach each other."
        ) from error


def _store(rank: int, size: int) -> dist.Store:
    """Returns the store through which the ranks find each other; each restart by torchrun gets its own keys."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(host, port, size, is_master=rank == 0 and not is_torchruns, timeout=MEETING)
    # torchrun's store outlives restarts: without a prefix, keys of the previous attempt would be taken for this one's.
    return dist.PrefixStore(f"attempt {num_restarts()}", store) if is_torchruns else store


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def loss_of_rank_explained(ranks: Ranks, timeout: float) -> Iterator[None]:
    """Raises OutOfResources if the block fails because another rank has died or is hanging."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or is_out_of_gpu_memory(error) or not any(sign in str(error) for sign in LOST):
            raise
        reason = str(error).splitlines()[0][:160]
        raise OutOfResources(
            f"rank {ranks.rank} stopped because another rank died, or was not ready within --timeout {timeout:g} s "
            f"({reason}). The other rank's message says why; --resume continues from the last checkpoint."
        ) from error

"""Caches decoded images in memory that all loader workers share."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retinanet.runtime.free_memory import free_memory

SHARED_MEMORY = Path("/dev/shm")  # where PyTorch keeps shared memory on Linux


class ImageCache:
    """Caches as many of a dataset's images, starting with the first, as fit in `budget` bytes.

    An image is cached when it is first read, so the first epoch fills the cache.
    """

    def __init__(self, sizes: np.ndarray, budget: int) -> None:
        """Reserves the memory. `sizes` [N, 2] are the (height, width) of the images as cached."""
        self.ends = np.cumsum(3 * sizes.prod(axis=1, dtype=np.int64))
        self.num_images = int(np.searchsorted(self.ends, budget, side="right"))
        self.num_bytes = int(self.ends[self.num_images - 1]) if self.num_images else 0
        self.sizes = sizes
        self.pixels = torch.empty(self.num_bytes, dtype=torch.uint8).share_memory_()
        self.is_filled = torch.zeros(self.num_images, dtype=torch.bool).share_memory_()

    def get(self, index: int) -> Tensor | None:
        """Returns the image, uint8 [3, height, width] and read-only; None if it is not cached (yet)."""
        return self._slot(index) if index < self.num_images and self.is_filled[index] else None

    def put(self, index: int, image: Tensor) -> None:
        """Caches `image`, uint8 [3, height, width], if it fits."""
        if index < self.num_images:
            self._slot(index).copy_(image)
            self.is_filled[index] = True  # after the pixels, because another worker may read at any time

    def _slot(self, index: int) -> Tensor:
        start = int(self.ends[index - 1]) if index else 0
        height, width = self.sizes[index].tolist()
        return self.pixels[start : int(self.ends[index])].view(height, width, 3).permute(2, 0, 1)


def spare_memory() -> int:
    """Returns how many bytes a cache may take: half of the free memory, or of the free SHARED_MEMORY if that is less.

    Workers and the network need the rest.
    """
    free = [free_memory()]
    if SHARED_MEMORY.is_dir():
        free.append(shutil.disk_usage(SHARED_MEMORY).free)
    return min(free) // 2

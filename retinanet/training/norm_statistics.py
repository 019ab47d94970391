"""Measures, on training images, the batch-norm statistics that a weights file lacks, before they are frozen.

If the batch norm of a randomly initialised layer kept mean 0 and variance 1, the layer's features could have
any scale, and training couldn't correct that.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retinanet.data.batches import loaded_from
from retinanet.data.dataset import CocoDataset
from retinanet.detector.model import RetinaNet

NUM_IMAGES = 64
IMAGES_AT_ONCE = 8


@torch.no_grad()
def measure_statistics(network: RetinaNet, names: Sequence[str], dataset: CocoDataset, device: torch.device) -> None:
    """Sets the statistics of the batch norms in `names` to their inputs' mean and variance, averaged over batches.

    Moves the network to `device`. The images are the same in every run and on every rank: spread evenly over `dataset`,
    and not augmented.
    """
    network.to(device)
    norms = [
        norm for name, norm in network.backbone.named_modules() if name in names and isinstance(norm, nn.BatchNorm2d)
    ]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for images in _batches(dataset):
        network.levels(images.to(device))
    for norm in norms:
        norm.momentum = 0.1  # PyTorch's default
    network.train()


def _batches(dataset: CocoDataset) -> Iterator[Tensor]:
    """Yields batches, uint8 [B, 3, H, W], of images that are similar in shape, so that little of a batch is padding."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, NUM_IMAGES).round().astype(int))
    heights, widths = dataset.sizes[chosen].T
    ordered = chosen[np.argsort(heights / widths, kind="stable")]
    for rows in np.array_split(ordered, -(-len(ordered) // IMAGES_AT_ONCE)):
        batch = loaded_from([dataset[row] for row in rows.tolist()]).batch
        if len(batch.images):  # unless none of the images can be read
            yield batch.images

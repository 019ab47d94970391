"""Creates overlapping candidates for tests of NMS."""

import torch

from retinanet.detector.structures import Candidates


def crowded(num_images, num_candidates, seed=0):
    """Returns overlapping candidates of 3 classes, the mask of the valid half, the step and the IoU for NMS."""
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_images, num_candidates, 2, generator=draw) * 200
    boxes = torch.cat([corners, corners + 20 + torch.rand(num_images, num_candidates, 2, generator=draw) * 30], dim=2)
    scores = torch.rand(num_images, num_candidates, generator=draw)
    labels = torch.randint(0, 3, (num_images, num_candidates), generator=draw)
    return Candidates(boxes, scores, labels), scores > 0.5, torch.tensor(257.0).double(), 0.5

"""Checkpoints of small random networks that find something."""

from pathlib import Path
from typing import Any

import torch

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.detector.model import RetinaNet
from support.data_folder import NAMES

# The network's arguments, and the parts of a checkpoint that say them.
NETWORK = {"head_norm": "head_norm", "iou_branch": "iou_branch", "anchor_shapes": "anchors"}


def random_checkpoint(path: Path, *, depth: int = 18, channels: int = 8, **parts: Any) -> Path:
    """A checkpoint at `path` with the given `parts` of its network and record."""
    kind = {name: parts[given] for name, given in NETWORK.items() if given in parts}
    model = RetinaNet(len(NAMES), depth, channels, **kind)
    for head in (model.classification_head, model.regression_head):
        torch.nn.init.normal_(head.output.weight, std=0.1)
    usual = {"min_side": 64, "max_side": 96, "batch_size": 2, "epoch": 1, "settings": {}}
    names = {"class_names": list(NAMES), "category_ids": [1, 2]}
    content = {"model": model.state_dict(), "depth": depth, "channels": channels, **names, **usual, **parts}
    save_checkpoint(Checkpoint(**content), path)
    return path

"""Checkpoints of small random networks that find something."""

from pathlib import Path
from typing import Any

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from support.built import small_network
from support.data_folder import NAMES

NETWORK_PARTS = ("head_norm", "iou_branch", "anchors")  # of a checkpoint, beside depth and channels


def random_checkpoint(path: Path, *, depth: int = 18, channels: int = 8, **parts: Any) -> Path:
    """A checkpoint at `path` with the given `parts` of its network and record."""
    kind = {name: parts[name] for name in NETWORK_PARTS if name in parts}
    model = small_network(depth=depth, channels=channels, random_outputs=True, **kind)
    usual = {"min_side": 64, "max_side": 96, "batch_size": 2, "epoch": 1, "settings": {}}
    names = {"class_names": list(NAMES), "category_ids": [1, 2]}
    content = {"model": model.state_dict(), "depth": depth, "channels": channels, **names, **usual, **parts}
    save_checkpoint(Checkpoint(**content), path)
    return path

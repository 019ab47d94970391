"""Writes checkpoints of small networks whose random outputs include detections."""

from pathlib import Path
from typing import Any

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.detector.settings import Architecture
from support.built import small_network
from support.data_folder import NAMES


def random_checkpoint(path: Path, **parts: Any) -> Path:
    """Writes a checkpoint in which `parts` override fields of the Architecture or of the Checkpoint; returns `path`."""
    architecture = {name: parts.pop(name) for name in Architecture._fields if name in parts}
    model = small_network(len(parts.get("class_names", NAMES)), random_outputs=True, **architecture)
    usual = {"min_side": 64, "max_side": 96, "batch_size": 2, "epoch": 1, "settings": {}}
    names = {"class_names": list(NAMES), "category_ids": [1, 2]}
    content = {"model": model.state_dict(), "architecture": model.architecture, **names, **usual, **parts}
    save_checkpoint(Checkpoint(**content), path)
    return path
